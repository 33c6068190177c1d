// Runs programs: for every step the addresses are filled in and its kernel is called.
#pragma once

#include <cstdint>
#include <vector>

#include "core/parallel.h"
#include "model/graph.h"
#include "core/interruption.h"
#include "cpu/plan/batch_partition.h"
#include "cpu/plan/program.h"
#include "cpu/workspace.h"
#include "engine/backend.h"

namespace kernelprune {

// What running this partition by `threads` threads takes: an arena for each thread that has images
// of its own.
WorkspaceSize workspace_size(const BatchPartition& partition, int threads);

// In place of what a program of one convolution has; null: that is taken.
struct GivenWeights {
  const float* weight = nullptr;
  const float* bias = nullptr;
};

// One run, with the user's tensors. Allocates nothing.
class ProgramRun {
 public:
  // Keeps references to all of them. `threads` is what the programs were planned for.
  ProgramRun(const Graph& graph, int threads, const Tensors& tensors, Interruption* interruption,
             const GivenWeights& given = {})
      : graph_(graph),
        threads_(threads),
        tensors_(tensors),
        interruption_(interruption),
        given_(given) {}

  // The whole batch: whole batch blocks by each thread while there are enough, and what is left
  // over by all of them.
  void run(const BatchPartition& partition, Workspace* workspace) const;

  // Batch block after batch block by all threads. Adds what the nodes took to `node_seconds`.
  void profile(const BatchPartition& partition, Workspace* workspace,
               std::vector<double>* node_seconds) const;

 private:
  // One batch block, by one thread of the team: `images` images of the batch from `image` on.
  void alone(const TeamMember& member, const Program& program, uint8_t* arena, int64_t image,
             int64_t images) const;

  // The same by all threads. Adds what the steps took to `step_seconds`, if that is not null.
  void together(const Program& program, Workspace* workspace, int64_t image, int64_t images,
                std::vector<double>* step_seconds) const;

  // What a step works on.
  struct Place {
    uint8_t* arena;
    uint8_t* block_arena;  // of what the steps per image leave for their batch block
    int64_t image;         // the first image, in the batch
    int64_t images;        // so many of them
    int64_t in_block = 0;  // the image within its batch block, for a step that runs once per image
    int64_t part = 0;      // whose scratch memory a step uses
  };

  // A pass, and which of its ranges.
  struct Turn {
    const Pass& pass;
    int64_t range;
    RangePlace at;
    Turn(const Pass& of, int64_t index)
        : pass(of), range(index), at(RangePlace::of(of.ranges, index)) {}
  };

  const uint8_t* locate(const Operand& operand, const Pass& pass, const Place& place) const;
  // Part `part` of `parts` of a step, or, with 1, all of it.
  void run_step(const Step& step, const Turn& turn, const Place& place, int part, int parts) const;
  // Units [begin, end) of a step that computes with bytes.
  void run_int8_step(const Step& step, const Turn& turn, const Place& place, int64_t begin,
                     int64_t end) const;
  // All of it by one thread.
  void run_pass(const TeamMember& member, const Program& program, const Pass& pass,
                const Place& place) const;

  const Graph& graph_;
  const int threads_;
  const Tensors& tensors_;
  Interruption* const interruption_;
  const GivenWeights given_;
};

}  // namespace kernelprune
