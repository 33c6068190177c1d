// Memory for activations, kept between runs.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "core/aligned_buffer.h"

namespace kernelprune {

// Memory for the activations of one run: one arena per thread that works on images of its own.
struct Workspace {
  std::vector<AlignedBuffer> arenas;
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
