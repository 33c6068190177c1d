// Classifies a photo: classify MODEL PHOTO.ppm
//
// Prints the five best classes with their scores. The photo is a binary PPM (P6) of the size that
// the model takes, or of any size where the model leaves its sides free. Its numbers go into the
// model divided by 255; what else a model wants is best part of the model.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernelprune/engine.h"

namespace {

struct Photo {
  int64_t height = 0, width = 0;
  std::vector<float> values;  // [3, height, width], 0 to 1
};

// The next number of a PPM header; "#" begins a comment.
int64_t read_number(std::istream& in) {
  while ((in >> std::ws).peek() == '#') in.ignore(1 << 20, '\n');
  int64_t value = 0;
  if (!(in >> value) || value < 1 || value > 1 << 15) {
    throw std::runtime_error("the photo has no valid PPM header");
  }
  return value;
}

Photo read_ppm(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string magic(2, ' ');
  if (!in.read(&magic[0], 2) || magic != "P6") {
    throw std::runtime_error(path + ": not a binary PPM (P6)");
  }
  Photo photo;
  photo.width = read_number(in), photo.height = read_number(in);
  if (read_number(in) != 255) throw std::runtime_error(path + ": not of 8 bits");
  in.get();
  const int64_t places = photo.height * photo.width;
  std::vector<char> bytes(3 * places);
  if (!in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) {
    throw std::runtime_error(path + ": the photo ends early");
  }
  photo.values.resize(bytes.size());
  for (int64_t place = 0; place < places; ++place) {
    for (int64_t channel = 0; channel < 3; ++channel) {
      photo.values[channel * places + place] =
          static_cast<unsigned char>(bytes[3 * place + channel]) / 255.0f;
    }
  }
  return photo;
}

// The engine for the photo's size.
std::shared_ptr<const kernelprune::Engine> engine_for(const std::string& path, const Photo& photo) {
  auto engine = std::make_shared<const kernelprune::Engine>(kernelprune::Engine::load(path, {}));
  const std::vector<int64_t> wanted{3, photo.height, photo.width};
  if (engine->inputs().size() != 1 || engine->outputs().size() != 1) {
    throw std::runtime_error(path + ": not a model with one input and one output");
  }
  const kernelprune::TensorInfo& input = engine->inputs()[0];
  if (input.shape == wanted) return engine;
  if (std::find(input.free.begin(), input.free.end(), true) != input.free.end()) {
    return engine->at(photo.height, photo.width);
  }
  std::string shape;
  for (int64_t side : input.shape) shape += (shape.empty() ? "" : "x") + std::to_string(side);
  throw std::runtime_error(path + ": takes images of " + shape);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s MODEL PHOTO.ppm\n", argv[0]);
    return 2;
  }
  try {
    const Photo photo = read_ppm(argv[2]);
    const auto engine = engine_for(argv[1], photo);
    const std::vector<int64_t>& shape = engine->outputs()[0].shape;
    std::vector<float> scores(
        std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>()));
    engine->run({photo.values.data()}, {scores.data()}, 1);

    std::vector<size_t> order(scores.size());
    std::iota(order.begin(), order.end(), size_t{0});
    const size_t shown = std::min<size_t>(5, order.size());
    std::partial_sort(order.begin(), order.begin() + shown, order.end(),
                      [&](size_t a, size_t b) { return scores[a] > scores[b]; });
    for (size_t i = 0; i < shown; ++i) std::printf("%5zu  %.6g\n", order[i], scores[order[i]]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
