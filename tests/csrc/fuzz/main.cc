// Damages model files by the thousand and checks what the engine does with each: see check.h.
//
//   kernelprune_fuzz --seeds FOLDER [--seed N] [--first K] [--count M] [--jobs J] [--save FOLDER]
//                    [--write FOLDER] [--slowness X] [--spoil 1]
//   kernelprune_fuzz --file FILE
//
// Case K of seed N is the same on every machine. Files that fail are kept in --save, all of them in
// --write (for another reader). --slowness: of a build with sanitizers; --spoil: see check.h. Exits
// with 1 if any failed.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "cuda/emulator/device.h"
#include "kernelprune/tuning.h"
#include "model_file.h"
#include "mutate.h"
#include "random.h"
#include "workers.h"

namespace kernelprune::fuzz {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string seeds, save, write, file;
  uint64_t seed = 0;
  CheckOptions check;
  Cases cases;
};

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const fs::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

Options options_from(int count, char** words) {
  Options options;
  options.cases.count = 1000;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string name = words[i], value = words[i + 1];
    if (name == "--seeds")
      options.seeds = value;
    else if (name == "--save")
      options.save = value;
    else if (name == "--write")
      options.write = value;
    else if (name == "--file")
      options.file = value;
    else if (name == "--seed")
      options.seed = std::stoull(value);
    else if (name == "--first")
      options.cases.first = std::stoll(value);
    else if (name == "--count")
      options.cases.count = std::stoll(value);
    else if (name == "--jobs")
      options.cases.jobs = std::max(std::stoi(value), 1);
    else if (name == "--slowness")
      options.check.slowness = std::stod(value);
    else if (name == "--spoil")
      options.check.spoil = value == "1";
    else
      throw std::runtime_error("unknown option " + name);
  }
  if (options.seeds.empty() && options.file.empty()) throw std::runtime_error("--seeds is missing");
  options.cases.timeout *= options.check.slowness;
  return options;
}

std::vector<ModelFile> read_seeds(const std::string& folder) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(folder)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<ModelFile> seeds;
  for (const fs::path& path : paths) seeds.push_back(ModelFile::parse(read_file(path)));
  if (seeds.empty()) throw std::runtime_error("no files in " + folder);
  return seeds;
}

Random random_of(const Options& options, int64_t number) {
  Random random(options.seed);
  return Random(random.bits() ^ Random(static_cast<uint64_t>(number)).bits());
}

// What all cases came to.
class Summary {
 public:
  explicit Summary(const Options& options)
      : options_(options), start_(std::chrono::steady_clock::now()) {}

  void add(int64_t number, const std::string& line) {
    std::istringstream words(line);
    std::string kind, rest;
    double bytes = 0, peak = 0, total = 0, seconds = 0;
    words >> kind >> bytes >> peak >> total >> seconds >> std::ws;
    std::getline(words, rest);
    ++kinds_[kind];
    if (kind == "refused") ++reasons_[rest];
    peak_ = std::max(peak_, peak), total_ = std::max(total_, total);
    seconds_ = std::max(seconds_, seconds), bytes_ = std::max(bytes_, bytes);
    if (kind == "failed")
      std::printf("case %lld: %s\n", static_cast<long long>(number), rest.c_str());
    progress();
  }

  void add_death(int64_t number, const std::string& reason) {
    ++kinds_["failed"];
    std::printf("case %lld: %s\n", static_cast<long long>(number), reason.c_str());
    progress();
  }

  bool print() const {
    std::vector<std::pair<int64_t, std::string>> sorted;
    for (const auto& [reason, count] : reasons_) sorted.emplace_back(count, reason);
    std::sort(sorted.rbegin(), sorted.rend());
    for (const auto& [count, reason] : sorted) {
      std::printf("%8lld  %s\n", static_cast<long long>(count), reason.substr(0, 110).c_str());
    }
    std::printf(
        "a load took at most %.1f MB at once, %.1f MB in all and %.2f s of one processor; "
        "the largest file has %.0f bytes\n",
        peak_ / 1e6, total_ / 1e6, seconds_, bytes_);
    std::printf("%lld files in %.0f s", static_cast<long long>(done_), elapsed());
    for (const char* kind : {"refused", "accepted", "compared", "failed"}) {
      const auto found = kinds_.find(kind);
      std::printf(", %lld %s", static_cast<long long>(found == kinds_.end() ? 0 : found->second),
                  kind);
    }
    std::printf("\n");
    return kinds_.count("failed") == 0;
  }

 private:
  void progress() {
    if (++done_ % 5000 == 0) {
      std::printf("%lld of %lld files, %.0f s\n", static_cast<long long>(done_),
                  static_cast<long long>(options_.cases.count), elapsed());
    }
    std::fflush(stdout);
  }
  double elapsed() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

  const Options& options_;
  std::chrono::steady_clock::time_point start_;
  int64_t done_ = 0;
  std::map<std::string, int64_t> kinds_, reasons_;
  double peak_ = 0, total_ = 0, seconds_ = 0, bytes_ = 0;
};

std::string line_of(const Checked& result, size_t bytes) {
  std::string kind = "refused", rest = result.reason;
  if (result.accepted) kind = result.ran ? "compared" : "accepted";
  if (!result.failures.empty()) {
    kind = "failed", rest.clear();
    for (const std::string& failure : result.failures) rest += failure + "; ";
  }
  std::ostringstream line;
  line << kind << ' ' << bytes << ' ' << result.peak_bytes << ' ' << result.total_bytes << ' '
       << result.seconds << ' ' << rest;
  return line.str();
}

bool fuzz(const Options& options) {
  const std::vector<ModelFile> seeds = read_seeds(options.seeds);
  Summary summary(options);
  const auto name = [](int64_t number) {
    return "case-" + std::to_string(number) + ".safetensors";
  };
  for (const std::string& folder : {options.save, options.write}) {
    if (!folder.empty()) fs::create_directories(folder);
  }
  run_cases(
      options.cases,
      [&](int64_t number) {
        Random random = random_of(options, number);
        const std::string file = mutated(seeds, &random);
        const Checked result = check(file, options.check, &random);
        if (!result.failures.empty() && !options.save.empty()) {
          write_file(fs::path(options.save) / name(number), file);
        }
        if (!options.write.empty()) {
          const char* verdict = result.accepted ? "accepted-" : "refused-";
          write_file(fs::path(options.write) / (verdict + name(number)), file);
        }
        return line_of(result, file.size());
      },
      [&](int64_t number, const std::string& line) { summary.add(number, line); },
      [&](int64_t number, const std::string& reason) {
        Random random = random_of(options, number);
        const std::string file = mutated(seeds, &random);
        if (!options.save.empty()) write_file(fs::path(options.save) / name(number), file);
        summary.add_death(number, reason);
      });
  return summary.print();
}

}  // namespace
}  // namespace kernelprune::fuzz

int main(int count, char** words) {
  kernelprune::register_device("cuda-emulated", &kernelprune::cuda::open_emulated_device);
  using namespace kernelprune::fuzz;
  try {
    const Options options = options_from(count, words);
    if (options.file.empty()) return fuzz(options) ? 0 : 1;
    const std::string file = read_file(options.file);
    Random random(options.seed);
    const Checked result = check(file, options.check, &random);
    std::printf("%s\n", line_of(result, file.size()).c_str());
    return result.failures.empty() ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
