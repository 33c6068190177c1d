// How a kernel becomes a row of a table. Included once per target and table, whose namespace
// defines launch().

// K::run on the target: the one way in which kernels are started.
template <class K>
void launch(const LaunchShape& shape, const Args& args, void* stream);

template <class K>
constexpr Kernel row(const char* name, int outputs) {
  Kernel kernel;
  kernel.name = name;
  kernel.threads = K::kThreads;
  kernel.outputs = outputs;
  kernel.launch = &launch<K>;
  return kernel;
}
