// Makes a damaged file, or another valid one, out of valid ones.
#pragma once

#include <string>
#include <vector>

#include "model_file.h"
#include "random.h"

namespace kernelprune::fuzz {

// Case `number` of a run: 1 to 6 changes, each at the level of the graph, the tensors, the header,
// the text or the bytes.
std::string mutated(const std::vector<ModelFile>& seeds, Random* random);

// --- the levels ----------------------------------------------------------------------------------

// Text that stands for a number where numbers are compared, converted or multiplied.
const std::string& edge_number(Random* random);

void change_graph(ModelFile* model, Random* random);
// Writes the shapes that the nodes compute, and gives layers whose shapes have changed new tensors,
// so that the reader looks past them. As far as the graph makes sense.
void repair(ModelFile* model, Random* random);
// A layer's tensors with random connections; `of_integers`: as for a quantised input.
std::vector<Tensor> random_layer(int64_t out_channels, int64_t in_channels, int64_t kernel_h,
                                 int64_t kernel_w, bool of_integers, Random* random);
// A scale and a zero point, hardly ever ones that no file may have.
Tree random_quantization(Random* random);
// A tensor of a node: indices below a number, or numbers if that is 0.
Tensor random_tensor(const std::string& name, const std::vector<int64_t>& shape, int64_t below,
                     Random* random);
void change_tensors(ModelFile* model, Random* random);
// A node of any op that may follow a value of this shape, without wiring.
Tree random_node(const std::string& op, const std::vector<int64_t>& shape, Random* random);
const std::vector<std::string>& op_words();
const std::vector<std::string>& function_words();
// Any JSON document.
void change_tree(Tree* tree, Random* random);
void change_header(Tree* header, Random* random);
void change_text(std::string* text, Random* random);
void change_bytes(std::string* file, const std::string& other, Random* random);

}  // namespace kernelprune::fuzz
