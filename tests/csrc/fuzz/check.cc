#include "check.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <ctime>
#include <exception>
#include <limits>
#include <map>
#include <memory>

#include "counting.h"
#include "expected.h"
#include "kernelprune/tuning.h"
#include "model/reader.h"
#include "model/sizes.h"

namespace kernelprune::fuzz {
namespace {

// Of one load. The engine keeps the weights once per form and layout that a kernel wants.
constexpr int64_t kFreeBytes = int64_t{2} << 20;
constexpr int64_t kBytesPerByte = 40;
constexpr int64_t kTotalFreeBytes = int64_t{8} << 20;
constexpr int64_t kTotalBytesPerByte = 300;
// 256 bytes for each channel of some quantised ops.
constexpr int64_t kBytesPerTable = 384;
constexpr double kSecondsPerTable = 1e-5;
constexpr double kFreeSeconds = 0.5;
constexpr double kSecondsPerByte = 1e-6;
// Of one run, on top of the tensors: activations of a batch block, padded and transformed.
constexpr int64_t kFreeRunBytes = int64_t{4} << 20;
constexpr int64_t kRunBytesPerByte = 16;

constexpr int64_t kMostMacs = 300'000;
constexpr int64_t kMostElements = 60'000;
constexpr int kImages = 3;  // different ones; a batch repeats them

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// What a refusal says, without what differs from file to file: file, node, names, numbers, shapes.
std::string without_details(const std::string& message) {
  size_t begin = message.find(": ");
  begin = begin == std::string::npos ? 0 : begin + 2;  // behind the name of the file
  const size_t node = message.find("): ", begin);
  if (message.compare(begin, 6, "node '") == 0 && node != std::string::npos) begin = node + 3;
  std::string out;
  for (size_t i = begin; i < message.size(); ++i) {
    const char quote = message[i] == '[' ? ']' : message[i];
    if (quote == '\'' || quote == ']') {
      i = std::min(message.find(quote, i + 1), message.size() - 1);
      out += quote == ']' ? "[]" : "''";
    } else if (std::isdigit(static_cast<unsigned char>(message[i])) != 0) {
      if (out.empty() || out.back() != '#') out += '#';
    } else {
      out += message[i];
    }
  }
  return out;
}

struct Layout {
  std::string isa;
  int64_t lanes;
  std::string int8_isa;
  std::string text() const {
    return int8_isa.empty() ? isa + ", " + std::to_string(lanes) + " lanes" : "int8 " + int8_isa;
  }
};

// In which an engine computes; one image at a time where there are quantised values.
std::vector<Layout> layouts(bool is_quantized) {
  static const std::map<std::string, std::vector<int64_t>> kLanes = {
      {"avx512", {16, 8, 1}}, {"avx2", {8, 1}}, {"portable", {4, 1}}};
  std::vector<Layout> all;
  if (is_quantized) {
    for (const std::string& isa : available_int8_isas()) {
      const std::string beside = isa == "avx_vnni" ? "avx2" : isa.substr(0, isa.find('_'));
      all.push_back({beside, 1, isa});
    }
    return all;
  }
  for (const std::string& isa : available_isas()) {
    for (const int64_t lanes : kLanes.at(isa)) all.push_back({isa, lanes, ""});
  }
  return all;
}

// Runs `body`; anything but an Error of an allowed kind is a failure.
template <typename Body>
bool guarded(const Body& body, bool any_error, const std::string& what, Checked* result) {
  std::string problem;
  try {
    body();
    return true;
  } catch (const Error& error) {
    if (any_error) return false;
    problem = std::string("an Error of another kind: ") + error.what();
  } catch (const std::exception& error) {
    problem = std::string("another exception: ") + error.what();
  } catch (...) {
    problem = "another exception";
  }
  result->failures.push_back(what + ": " + problem);
  return false;
}

// One run's tensors, with a margin around the outputs that must stay as it is.
class Tensors {
 public:
  static constexpr size_t kMargin = 64;
  static constexpr float kUntouched = -12345.678f;

  Tensors(const Graph& graph, const std::vector<std::vector<std::vector<float>>>& images,
          int64_t batch) {
    for (size_t i = 0; i < graph.inputs.size(); ++i) {
      const size_t size = images[0][i].size();
      // Exactly as large as the caller's may be: a sanitizer then sees reads past the end.
      inputs_.emplace_back(new float[size * static_cast<size_t>(batch)]);
      for (int64_t n = 0; n < batch; ++n) {
        const auto& image = images[static_cast<size_t>(n % kImages)][i];
        std::copy(image.begin(), image.end(), inputs_.back().get() + static_cast<size_t>(n) * size);
      }
      in.push_back(inputs_.back().get());
    }
    for (const int output : graph.outputs) {
      const auto size =
          static_cast<size_t>(graph.values[static_cast<size_t>(output)].shape.elements() * batch);
      outputs_.emplace_back(size + 2 * kMargin, kUntouched);
      out.push_back(outputs_.back().data() + kMargin);
    }
  }

  bool margins_are_whole() const {
    for (const std::vector<float>& output : outputs_) {
      for (size_t i = 0; i < kMargin; ++i) {
        if (output[i] != kUntouched || output[output.size() - 1 - i] != kUntouched) return false;
      }
    }
    return true;
  }

  std::vector<const void*> in;
  std::vector<void*> out;

 private:
  std::vector<std::unique_ptr<float[]>> inputs_;
  std::vector<std::vector<float>> outputs_;
};

// For an input: a byte, or about as much as bytes stand for.
float random_number(const Value& input, Random* random) {
  if (input.given_as_bytes) return static_cast<float>(random->within(0, 255));
  const float number = random->normal();
  if (!input.quantization) return number;
  const auto middle = static_cast<float>(128 - input.quantization->zero_point);
  return (60.0f * number + middle) * input.quantization->scale;
}

// A small file that was accepted: the graph, images, and what they must give.
struct Case {
  const std::string& file;
  Graph graph;
  Precision precision;
  Work work;
  std::vector<std::vector<std::vector<float>>> images;  // [image][input]
  std::vector<std::vector<ExpectedValue>> wanted;       // [image][output]
  int64_t height = 0, width = 0;                        // of the maps; 0: as in the file

  // Makes up images, if the graph is small enough to be run.
  bool fill(Random* random) {
    work = work_of(graph);
    if (work.macs > kMostMacs || work.elements > kMostElements) return false;
    for (int n = 0; n < kImages; ++n) {
      std::vector<std::vector<float>> image;
      for (const int input : graph.inputs) {
        const Value& value = graph.values[static_cast<size_t>(input)];
        image.emplace_back(static_cast<size_t>(value.shape.elements()));
        for (float& number : image.back()) number = random_number(value, random);
      }
      wanted.push_back(expected(graph, image, precision == Precision::kFast));
      images.push_back(std::move(image));
    }
    return true;
  }
};

// The largest error in units of what rounding explains.
double worst_error(const Case& c, const Tensors& tensors, int64_t batch) {
  double worst = 0.0;
  for (int64_t n = 0; n < batch; ++n) {
    const auto& wanted = c.wanted[static_cast<size_t>(n % kImages)];
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (!std::isfinite(wanted[i].error)) continue;
      const std::vector<double>& data = wanted[i].value.data;
      const float* got =
          static_cast<const float*>(tensors.out[i]) + static_cast<size_t>(n) * data.size();
      for (size_t at = 0; at < data.size(); ++at) {
        const double error = std::fabs(static_cast<double>(got[at]) - data[at]);
        if (!(error <= wanted[i].error + 1e-30)) {
          worst = std::max(worst, std::isfinite(error) ? error / (wanted[i].error + 1e-30)
                                                       : std::numeric_limits<double>::infinity());
        }
      }
    }
  }
  return worst;
}

void run_and_compare(const Case& c, const Engine& engine, int64_t lanes, int threads, int64_t batch,
                     const std::string& what, Checked* result) {
  Tensors tensors(c.graph, c.images, batch);
  std::shared_ptr<const Engine> sized;
  if (c.height > 0) sized = engine.at(c.height, c.width);
  start_counting(int64_t{1} << 30);
  const auto run = [&] { (sized ? *sized : engine).run(tensors.in, tensors.out, batch); };
  // A device may lack an op, which it says when it plans for a batch.
  if (!guarded(run, engine.isa() == "cuda-emulated", what, result)) return;
  const int64_t most = kFreeRunBytes + kRunBytesPerByte * 4 * c.work.elements * lanes *
                                           static_cast<int64_t>(threads);
  const int64_t peak = allocated().peak;
  if (peak > most) {
    result->failures.push_back(what + ": the run took " + std::to_string(peak) + " bytes");
  }
  const double worst = worst_error(c, tensors, batch);
  if (worst > 0.0) {
    result->failures.push_back(what + ": differs from the reference, " + std::to_string(worst) +
                               " times what rounding explains");
  }
  if (!tensors.margins_are_whole()) {
    result->failures.push_back(what + ": wrote beside an output");
  }
}

// Any of its candidates for every layer.
void choose_candidates(const Engine& engine, Tuning* tuning, Random* random) {
  for (const LayerCandidates& layer : candidates_of(engine)) {
    tuning->choices[layer.layer] = random->pick(layer.candidates).name;
  }
}

void check_layout(const Case& c, const Layout& layout, Random* random, Checked* result) {
  EngineOptions options;
  options.isa = layout.isa;
  options.lanes = layout.lanes;
  options.precision = c.precision;
  Tuning tuning;
  tuning.int8_isa = layout.int8_isa;
  const int64_t batches[] = {1, 3, layout.lanes + 1};
  for (int plan = 0; plan < 2; ++plan) {
    const int64_t batch = batches[random->below(3)];
    const std::string what =
        layout.text() + ", batch " + std::to_string(batch) + (plan > 0 ? ", other candidates" : "");
    guarded(
        [&] {
          const auto* bytes = reinterpret_cast<const uint8_t*>(c.file.data());
          const Engine engine = Engine::load_bytes(bytes, c.file.size(), "file", options, tuning);
          run_and_compare(c, engine, layout.lanes, 1, batch, what, result);
          choose_candidates(engine, &tuning, random);
        },
        false, what, result);
  }
}

// Options as a damaged plan file or a careless caller would give them: an engine that computes the
// same, or an Error.
void check_options(const Case& c, Random* random, Checked* result) {
  static const std::vector<std::string> kIsas = {"", "avx512", "avx2", "portable", "sse9", "\n"};
  static const std::vector<int64_t> kLanes = {0, 1, 4, 8, 16, -1, 3, int64_t{1} << 62};
  static const std::vector<double> kSeconds = {0.0, -1.0, 1e-9, 1.0, 1e300, 5e-324, NAN, INFINITY};
  EngineOptions options;
  Tuning tuning;
  options.precision = c.precision;
  options.isa = random->pick(kIsas);
  if (random->chance(0.5)) options.lanes = random->pick(kLanes);
  if (random->chance(0.5)) tuning.planar_nodes = static_cast<int>(random->within(-2, 12));
  if (random->chance(0.1)) options.threads = static_cast<int>(random->within(-1, 3));
  if (random->chance(0.1)) options.device = "cuda-emulated";
  for (const int64_t lanes : kLanes) {
    if (random->chance(0.3)) tuning.seconds[lanes] = random->pick(kSeconds);
    if (random->chance(0.1)) tuning.cuts[lanes] = static_cast<int>(random->within(-2, 12));
  }
  guarded(
      [&] {
        const auto* bytes = reinterpret_cast<const uint8_t*>(c.file.data());
        for (int plan = 0; plan < 2; ++plan) {
          const Engine engine = Engine::load_bytes(bytes, c.file.size(), "file", options, tuning);
          run_and_compare(c, engine, 16, engine.threads(), random->within(1, 20), "options",
                          result);
          choose_candidates(engine, &tuning, random);
          if (tuning.choices.empty() || random->chance(0.5)) continue;
          auto& [layer, name] = *tuning.choices.begin();
          name = random->chance(0.5) ? name + "x" : tuning.choices.rbegin()->second;
        }
      },
      true, "options", result);
}

// The file's maps in another size: the engine gives what the reference gives for that size, or both
// refuse it.
void check_size(const Case& of_file, Random* random, Checked* result) {
  const Shape& own = of_file.graph.values[static_cast<size_t>(of_file.graph.inputs[0])].shape;
  const auto side = [&](bool is_free, int64_t given) {
    if (!is_free || random->chance(0.1)) return given;
    return random->chance(0.5) ? 4 * random->within(1, 6) : random->within(1, 24);
  };
  const int64_t height = side(of_file.graph.free_height, own.h);
  const int64_t width = side(of_file.graph.free_width, own.w);
  const Layout layout = random->pick(layouts(of_file.graph.is_quantized()));
  Case c{of_file.file, {}, of_file.precision, {}, {}, {}, height, width};
  const auto* bytes = reinterpret_cast<const uint8_t*>(c.file.data());
  try {
    c.graph = graph_for_size(of_file.graph, height, width);
  } catch (const Error& refusal) {
    try {
      (void)Engine::load_bytes(bytes, c.file.size(), "file", {}).at(height, width);
      result->failures.push_back("the engine takes a size that the reference refuses");
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kShape) result->failures.push_back(error.what());
    }
    return;
  }
  if (c.fill(random)) check_layout(c, layout, random, result);
}

void check_results(const std::string& file, bool spoil, Random* random, Checked* result) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(file.data());
  const Precision precision = random->chance(0.5) ? Precision::kFast : Precision::kStrict;
  Case c{file, read_graph_bytes(bytes, file.size(), "file"), precision, {}, {}, {}};
  for (Node& node : c.graph.nodes) {
    if (!spoil || node.connections->col.empty()) continue;
    Connections spoiled = *node.connections;
    if (spoiled.is_integer()) {
      spoiled.integers.bias[0] /= 2;
    } else {
      spoiled.weight[0] += 0.1f;
    }
    node.connections = std::move(spoiled);
  }
  result->ran = c.fill(random);
  if (c.graph.free_height || c.graph.free_width) check_size(c, random, result);
  if (!result->ran) return;
  for (const Layout& layout : layouts(c.graph.is_quantized())) {
    check_layout(c, layout, random, result);
  }
  if (random->chance(0.3)) check_options(c, random, result);
}

// Channels that have a table of what each byte becomes.
int64_t tables_of(const Engine& engine) {
  int64_t tables = 0;
  for (const LayerInfo& layer : engine.layers(1)) {
    const bool has_tables = layer.kernel.find("int8_channel_tables") != std::string::npos;
    if (has_tables) tables += layer.shape[0];
  }
  return tables;
}

// Calls load(), which says how many tables there are. It must keep to memory and time that grow
// with the bytes of the file.
template <typename Load>
void measured(const Load& load, size_t file_bytes, double slowness, const std::string& what,
              Checked* result, bool keeps = false) {
  const auto bytes = static_cast<int64_t>(file_bytes);
  int64_t tables = 0;  // which load() says
  start_counting(int64_t{3} << 30);
  const double start = processor_seconds();
  guarded([&] { tables = load(); }, false, what, result);
  const double seconds = processor_seconds() - start;
  const Allocated memory = allocated();
  result->peak_bytes = std::max(result->peak_bytes, memory.peak);
  result->total_bytes = std::max(result->total_bytes, memory.total);
  result->seconds = std::max(result->seconds, seconds);
  const auto limit = [&](double got, double most, const std::string& unit) {
    if (got <= most) return;
    result->failures.push_back(what + ": " + std::to_string(bytes) + " bytes took " +
                               std::to_string(std::llround(got)) + " " + unit);
  };
  limit(static_cast<double>(memory.peak),
        static_cast<double>(kFreeBytes + kBytesPerByte * bytes + kBytesPerTable * tables),
        "bytes at once");
  limit(static_cast<double>(memory.total),
        static_cast<double>(kTotalFreeBytes + kTotalBytesPerByte * bytes +
                            2 * kBytesPerTable * tables),
        "bytes in all");
  limit(1e3 * seconds,
        1e3 * slowness *
            (kFreeSeconds + kSecondsPerByte * static_cast<double>(bytes) +
             kSecondsPerTable * static_cast<double>(tables)),
        "ms of one processor");
  if (!keeps && memory.live - static_cast<int64_t>(result->reason.capacity()) > 4096) {
    result->failures.push_back(what + ": " + std::to_string(memory.live) + " bytes were not freed");
  }
}

// What is too large to run must not become too large to load when a plan file names the kernels.
void check_choices(const uint8_t* bytes, size_t size, double slowness, Random* random,
                   Checked* result) {
  const bool is_quantized = read_graph_bytes(bytes, size, "file").is_quantized();
  const Layout layout = random->pick(layouts(is_quantized));
  EngineOptions options;
  options.isa = layout.isa;
  options.lanes = layout.lanes;
  Tuning tuning;
  tuning.int8_isa = layout.int8_isa;
  choose_candidates(Engine::load_bytes(bytes, size, "file", options, tuning), &tuning, random);
  const auto load = [&] {
    return tables_of(Engine::load_bytes(bytes, size, "file", options, tuning));
  };
  measured(load, size, slowness, "load as a plan says", result);
}

// What is too large to run must not become too large to plan, either.
void check_large_size(const uint8_t* bytes, size_t size, double slowness, Random* random,
                      Checked* result) {
  static const std::vector<int64_t> kSides = {0, 1, 100, 1000, 4096, 1 << 20, (1 << 20) + 1, -1};
  const Engine engine = Engine::load_bytes(bytes, size, "file", {});
  if (engine.inputs().size() != 1 || engine.inputs()[0].shape.size() != 3) return;
  const int64_t height = random->pick(kSides), width = random->pick(kSides);
  const auto plan = [&]() -> int64_t {
    try {
      return tables_of(*engine.at(height, width));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kShape) throw;
      return 0;
    }
  };
  measured(plan, size, slowness, "plan for another size", result, /*keeps=*/true);
}

}  // namespace

Checked check(const std::string& file, const CheckOptions& options, Random* random) {
  Checked result;
  // As the caller's: no byte more.
  const std::unique_ptr<uint8_t[]> bytes(new uint8_t[file.size()]);
  std::copy(file.begin(), file.end(), bytes.get());
  const auto load = [&]() -> int64_t {
    try {
      const Engine engine = Engine::load_bytes(bytes.get(), file.size(), "file", {});
      result.accepted = true;
      return tables_of(engine);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kFormat) throw;
      result.reason = without_details(error.what());
      return 0;
    }
  };
  measured(load, file.size(), options.slowness, "load", &result);
  if (result.accepted && result.failures.empty()) {
    const auto run = [&] {
      check_results(file, options.spoil, random, &result);
      check_large_size(bytes.get(), file.size(), options.slowness, random, &result);
      if (result.ran) return;
      check_choices(bytes.get(), file.size(), options.slowness, random, &result);
    };
    guarded(run, false, "run", &result);
  }
  start_counting(std::numeric_limits<int64_t>::max() / 2);
  return result;
}

}  // namespace kernelprune::fuzz
