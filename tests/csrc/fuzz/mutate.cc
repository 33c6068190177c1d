#include "mutate.h"

#include <cstring>

namespace kernelprune::fuzz {
namespace {

// The eight bytes in front of the header.
void change_prefix(std::string* file, Random* random) {
  static const std::vector<uint64_t> kSizes = {0,
                                               1,
                                               2,
                                               8,
                                               0x7fffffff,
                                               0xffffffff,
                                               uint64_t{1} << 26,
                                               (uint64_t{1} << 26) + 1,
                                               uint64_t{1} << 63,
                                               ~uint64_t{0},
                                               ~uint64_t{0} - 7};
  uint64_t size = 0;
  std::memcpy(&size, file->data(), sizeof(size));
  size = random->chance(0.5) ? size + static_cast<uint64_t>(random->within(-9, 9))
                             : random->pick(kSizes);
  std::memcpy(file->data(), &size, sizeof(size));
}

}  // namespace

const std::string& edge_number(Random* random) {
  static const std::vector<std::string> kNumbers = {"0",
                                                    "1",
                                                    "2",
                                                    "3",
                                                    "4",
                                                    "5",
                                                    "7",
                                                    "8",
                                                    "16",
                                                    "17",
                                                    "63",
                                                    "64",
                                                    "65",
                                                    "255",
                                                    "256",
                                                    "4096",
                                                    "4097",
                                                    "65535",
                                                    "65536",
                                                    "65537",
                                                    "1048575",
                                                    "1048576",
                                                    "1048577",
                                                    "2147483647",
                                                    "2147483648",
                                                    "4294967295",
                                                    "4294967296",
                                                    "9007199254740993",
                                                    "9223372036854775807",
                                                    "9223372036854775808",
                                                    "18446744073709551615",
                                                    "18446744073709551616",
                                                    "340282366920938463463374607431768211456",
                                                    "-1",
                                                    "-2",
                                                    "-0",
                                                    "-2147483648",
                                                    "-9223372036854775808",
                                                    "-9223372036854775809",
                                                    "0.0",
                                                    "1.0",
                                                    "1.5",
                                                    "1e0",
                                                    "1e2",
                                                    "1e-400",
                                                    "1e999",
                                                    "-1e999",
                                                    "01",
                                                    "+1",
                                                    "0x10",
                                                    "1.",
                                                    ".5",
                                                    "NaN",
                                                    "Infinity",
                                                    "true",
                                                    "false",
                                                    "null",
                                                    "\"\"",
                                                    "\"1\"",
                                                    "\"relu\"",
                                                    "[]",
                                                    "{}",
                                                    "[1]",
                                                    "[[1]]",
                                                    "{\"a\":1}"};
  return random->pick(kNumbers);
}

std::string mutated(const std::vector<ModelFile>& seeds, Random* random) {
  enum { kGraph, kTensors, kRepair, kHeader, kGraphText, kHeaderText, kPrefix, kBytes, kLevels };
  // Most changes go into the graph: what is refused at once proves the least.
  static const std::vector<int> kDraw = {kGraph,     kGraph,      kGraph,   kGraph,   kGraph,
                                         kGraph,     kTensors,    kTensors, kTensors, kHeader,
                                         kGraphText, kHeaderText, kPrefix,  kBytes};
  int counts[kLevels] = {};
  do {
    ++counts[random->pick(kDraw)];
  } while (random->chance(0.45));
  counts[kRepair] = random->chance(0.75) ? 1 : 0;

  ModelFile model = random->pick(seeds);
  for (int i = 0; i < counts[kGraph]; ++i) change_graph(&model, random);
  if (counts[kGraph] > 0 && counts[kRepair] > 0) repair(&model, random);
  for (int i = 0; i < counts[kTensors]; ++i) change_tensors(&model, random);
  std::string graph = model.graph.dump();
  for (int i = 0; i < counts[kGraphText]; ++i) change_text(&graph, random);
  Tree header = model.header(graph);
  for (int i = 0; i < counts[kHeader]; ++i) change_header(&header, random);
  std::string text = header.dump();
  for (int i = 0; i < counts[kHeaderText]; ++i) change_text(&text, random);
  std::string file = join(text, model.data());
  for (int i = 0; i < counts[kPrefix]; ++i) change_prefix(&file, random);
  if (counts[kBytes] > 0) {
    const ModelFile& other = random->pick(seeds);
    const std::string rest = join(other.header(other.graph.dump()).dump(), other.data());
    for (int i = 0; i < counts[kBytes]; ++i) change_bytes(&file, rest, random);
  }
  return file;
}

}  // namespace kernelprune::fuzz
