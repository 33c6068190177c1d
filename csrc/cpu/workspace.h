// Memory for activations, kept between runs.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/aligned_buffer.h"

namespace kernelprune {

struct WorkspaceSize {
  size_t arenas = 0;
  int64_t arena_bytes = 0;

  int64_t bytes() const { return arena_bytes * static_cast<int64_t>(arenas); }
};

// Memory for the activations of one run: one arena per thread that works on images of its own.
struct Workspace {
  std::vector<AlignedBuffer> arenas;

  // Has at least this size from now on, whatever was in it. Throws Error (kGeneral) that begins
  // with `source`.
  void reserve(const WorkspaceSize& size, const std::string& source);
};

// Keeps idle workspaces. Taking and giving back are single atomic exchanges, so runs on several
// threads never wait for each other.
class WorkspacePool {
 public:
  ~WorkspacePool() {
    for (auto& slot : slots_) delete slot.load();
  }
  std::unique_ptr<Workspace> take() {
    for (auto& slot : slots_) {
      if (Workspace* found = slot.exchange(nullptr)) return std::unique_ptr<Workspace>(found);
    }
    return std::make_unique<Workspace>();
  }
  void give_back(std::unique_ptr<Workspace> workspace) {
    for (auto& slot : slots_) {
      Workspace* empty = nullptr;
      if (slot.compare_exchange_strong(empty, workspace.get())) {
        workspace.release();
        return;
      }
    }
  }

 private:
  std::array<std::atomic<Workspace*>, 64> slots_{};
};

}  // namespace kernelprune
