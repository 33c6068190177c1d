#include "cpu/run.h"

#include <algorithm>

#include "core/clock.h"
#include "core/parallel.h"

namespace kernelprune {
namespace {

// Arenas for one slice: more than one for images that threads take through steps alone.
size_t arenas(const BatchSlice& slice, int threads) {
  const bool per_image = slice.program->per_image > 0 && slice.images >= threads;
  return slice.blocks() >= threads || per_image ? static_cast<size_t>(threads) : 1;
}

int64_t images_in(const BatchSlice& slice, int64_t block) {
  return std::min(slice.program->lanes, slice.images - block * slice.program->lanes);
}

// The user's tensors are floats, whatever the engine has in their place.
const uint8_t* image_of(const void* tensor, const Value& value, int64_t image) {
  return static_cast<const uint8_t*>(tensor) +
         image * value.shape.elements() * static_cast<int64_t>(sizeof(float));
}

// Memory of an activation, as the arguments of float kernels have it.
float* floats(const uint8_t* memory) {
  return reinterpret_cast<float*>(const_cast<uint8_t*>(memory));
}

}  // namespace

WorkspaceSize workspace_size(const BatchPartition& partition, int threads) {
  WorkspaceSize size;
  for (const BatchSlice& slice : partition) {
    size.arenas = std::max(size.arenas, arenas(slice, threads));
    size.arena_bytes = std::max(size.arena_bytes, slice.program->workspace_bytes);
  }
  return size;
}

const uint8_t* ProgramRun::locate(const Operand& operand, const Pass& pass,
                                  const Place& place) const {
  const auto index = static_cast<size_t>(operand.at);
  switch (operand.place) {
    case Operand::Place::kWorkspace:
      return (operand.image_stride > 0 ? place.block_arena : place.arena) + operand.at +
             place.in_block * operand.image_stride;
    case Operand::Place::kScratch:
      return place.arena + pass.scratch[place.part * pass.memories + operand.at] +
             place.in_block * operand.image_stride;
    case Operand::Place::kInput:
      return image_of(tensors_.inputs[index], graph_.values[graph_.inputs[index]], place.image);
    case Operand::Place::kOutput:
      return image_of(tensors_.outputs[index], graph_.values[graph_.outputs[index]], place.image);
    case Operand::Place::kNone:
      break;
  }
  return nullptr;
}

void ProgramRun::run_step(const Step& step, const Turn& turn, const Place& place, int part,
                          int parts) const {
  const Pass& pass = turn.pass;
  const bool copies = !pass.pieces.empty();
  const int64_t channels = copies ? pass.pieces[turn.range].channels : 0;
  int64_t begin = 0, end = copies ? channels : step.bounds.back();
  if (parts > 1 && copies) {
    begin = channels * part / parts, end = channels * (part + 1) / parts;
  } else if (parts > 1) {
    begin = step.bounds[part], end = step.bounds[part + 1];
  }
  if (begin == end || interruption_->stopped()) return;
  if (step.int8 != nullptr) return run_int8_step(step, turn, place, begin, end);
  KernelArgs args = step.args;
  args.images = place.images;
  if (given_.weight != nullptr) args.weight = given_.weight;
  if (given_.bias != nullptr) args.bias = given_.bias;
  args.in = floats(locate(step.in, pass, place));
  args.residual = floats(locate(step.residual, pass, place));
  args.out = floats(locate(step.out, pass, place));
  args.work = floats(locate(step.work, pass, place));
  if (copies) {
    const Piece& piece = pass.pieces[turn.range];
    args.in = floats(place.arena + piece.in + place.in_block * piece.image_stride);
    args.out += piece.out;
    args.in_stride = piece.in_stride, args.in_w = piece.row;
  } else if (pass.ranges.count > 1) {
    turn.at.set(step.rule, &args);
    const int64_t moved = turn.at.first * step.rule.out_floats;
    args.in += turn.at.first * step.rule.in_floats;
    args.out += moved;
    if (args.residual != nullptr) args.residual += moved;
  }
  if (step.epilogues.empty()) return step.kernel.run(args, begin, end);
  const auto channel = [&](int64_t unit) {
    return step.channels.empty() ? unit : step.channels[unit];
  };
  for (int64_t next = begin; begin < end; begin = next) {
    next = std::min(end, begin + step.chunk);
    step.kernel.run(args, begin, next);
    for (const Epilogue& epilogue : step.epilogues) {
      KernelArgs own = epilogue.args;
      own.in = own.out = args.out;
      own.in_stride = own.out_stride = args.out_stride;
      own.out_h = args.out_h, own.out_w = args.out_w;
      epilogue.kernel.run(own, channel(begin), channel(next));
    }
  }
}

void ProgramRun::run_int8_step(const Step& step, const Turn& turn, const Place& place,
                               int64_t begin, int64_t end) const {
  const Pass& pass = turn.pass;
  Int8Args args = step.int8->args;
  args.in = locate(step.in, pass, place);
  args.residual = locate(step.residual, pass, place);
  auto* out = const_cast<uint8_t*>(locate(step.out, pass, place));
  args.work = const_cast<uint8_t*>(locate(step.work, pass, place));
  if (!pass.pieces.empty()) {
    const Piece& piece = pass.pieces[turn.range];
    args.in = place.arena + piece.in + place.in_block * piece.image_stride;
    out += piece.out;
    args.in_stride = piece.in_stride, args.in_w = piece.row;
    args.table = piece.table;
  } else if (pass.ranges.count > 1) {
    args.tile_first = turn.at.first;
    args.tiles = pass.ranges.first(turn.range + 1) - turn.at.first;
  }
  args.out = out;
  step.int8->kernel.run(args, begin, end);
}

void ProgramRun::run_pass(const TeamMember& member, const Program& program, const Pass& pass,
                          const Place& place) const {
  for (int64_t range = 0; range < pass.ranges.count; ++range) {
    const Turn turn(pass, range);
    for (size_t i = pass.begin; i < pass.end; ++i) {
      run_step(program.steps[i], turn, place, 0, 1);
      if (member.is_first()) interruption_->poll();
    }
  }
}

namespace {

// Calls body(pass, first image, images, image in the block) for the passes of one batch block in
// order: those per image for each image but the first `done`, then the others.
template <typename Body>
void for_each_pass(const Program& program, int64_t image, int64_t images, int64_t done,
                   const Body& body) {
  for (int64_t i = done; program.per_image > 0 && i < images; ++i) {
    for (size_t p = 0; p < program.per_image; ++p) {
      body(program.passes[p], image + i, int64_t{1}, i);
    }
  }
  for (size_t p = program.per_image; p < program.passes.size(); ++p) {
    const Pass& pass = program.passes[p];
    if (!pass.each_image) body(pass, image, images, int64_t{0});
    for (int64_t i = 0; pass.each_image && i < images; ++i) body(pass, image + i, int64_t{1}, i);
  }
}

}  // namespace

void ProgramRun::alone(const TeamMember& member, const Program& program, uint8_t* arena,
                       int64_t image, int64_t images) const {
  for_each_pass(program, image, images, 0,
                [&](const Pass& pass, int64_t first, int64_t count, int64_t in_block) {
                  run_pass(member, program, pass, {arena, arena, first, count, in_block});
                });
}

void ProgramRun::together(const Program& program, Workspace* workspace, int64_t image,
                          int64_t images, std::vector<double>* step_seconds) const {
  uint8_t* const arena = workspace->arenas[0].data();
  // Images that one thread takes through the passes per image alone, an equal number for each.
  const int64_t owned = program.per_image > 0 ? images / threads_ * threads_ : 0;
  run_team(threads_, [&](const TeamMember& member) {
    Clock::time_point start = Clock::now();
    const auto lap = [&](size_t step) {
      if (member.is_first()) interruption_->poll();
      if (step_seconds == nullptr || !member.is_first()) return;
      (*step_seconds)[step] += seconds_since(start);
      start = Clock::now();
    };
    const auto run_range = [&](const Pass& pass, int64_t range, const Place& place) {
      const Turn turn(pass, range);
      for (size_t i = pass.begin; i < pass.end; ++i) {
        run_step(program.steps[i], turn, place, 0, 1);
        lap(i);
      }
    };
    member.for_each_part([&](int part) {
      for (int64_t n = owned * part / threads_; n < owned * (part + 1) / threads_; ++n) {
        uint8_t* const own = workspace->arenas[static_cast<size_t>(part)].data();
        for (size_t p = 0; p < program.per_image; ++p) {
          const Pass& pass = program.passes[p];
          for (int64_t range = 0; range < pass.ranges.count; ++range) {
            run_range(pass, range, {own, arena, image + n, 1, n});
          }
        }
      }
    });
    if (owned > 0) member.barrier();
    for_each_pass(program, image, images, owned,
                  [&](const Pass& pass, int64_t first, int64_t count, int64_t in_block) {
                    Place place{arena, arena, first, count, in_block};
                    member.for_each_part([&](int part) {
                      place.part = part;
                      for (int64_t range = pass.owned * part / threads_;
                           range < pass.owned * (part + 1) / threads_; ++range) {
                        run_range(pass, range, place);
                      }
                    });
                    place.part = 0;
                    if (pass.owned > 0) member.barrier();
                    for (int64_t range = pass.owned; range < pass.ranges.count; ++range) {
                      const Turn turn(pass, range);
                      for (size_t i = pass.begin; i < pass.end; ++i) {
                        member.for_each_part([&](int part) {
                          run_step(program.steps[i], turn, place, part, threads_);
                        });
                        // The pieces of a concat do not need each other.
                        if (pass.pieces.empty() || range + 1 == pass.ranges.count) member.barrier();
                        lap(i);
                      }
                    }
                  });
  });
}

void ProgramRun::run(const BatchPartition& partition, Workspace* workspace) const {
  for (const BatchSlice& slice : partition) {
    const Program& program = *slice.program;
    const auto first = [&](int64_t block) { return slice.first + block * program.lanes; };
    // Whole blocks per thread need no barriers at all; what is left over is shared step by step.
    const int64_t rounds = slice.blocks() / threads_;
    if (rounds > 0) {
      run_team(threads_, [&](const TeamMember& member) {
        member.for_each_part([&](int thread) {
          uint8_t* const arena = workspace->arenas[static_cast<size_t>(thread)].data();
          for (int64_t block = thread * rounds; block < (thread + 1) * rounds; ++block) {
            alone(member, program, arena, first(block), images_in(slice, block));
          }
        });
      });
    }
    for (int64_t block = rounds * threads_; block < slice.blocks(); ++block) {
      together(program, workspace, first(block), images_in(slice, block), nullptr);
    }
  }
}

void ProgramRun::profile(const BatchPartition& partition, Workspace* workspace,
                         std::vector<double>* node_seconds) const {
  for (const BatchSlice& slice : partition) {
    const Program& program = *slice.program;
    std::vector<double> step_seconds(program.steps.size(), 0.0);
    for (int64_t block = 0; block < slice.blocks(); ++block) {
      together(program, workspace, slice.first + block * program.lanes, images_in(slice, block),
               &step_seconds);
    }
    for (size_t i = 0; i < program.steps.size(); ++i) {
      const int node = program.steps[i].node;
      if (node >= 0) (*node_seconds)[static_cast<size_t>(node)] += step_seconds[i];
    }
  }
}

}  // namespace kernelprune
