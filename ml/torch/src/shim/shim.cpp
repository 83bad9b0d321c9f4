// What of libtorch tch does not reach: oneDNN's fused convolutions, and packages that PyTorch compiled ahead of time.
//
// Every function returns null and sets `error`, a string to be freed by `free`, where libtorch throws.

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

namespace {

using torch::inductor::AOTIModelPackageLoader;

// What follows a convolution, as src/shim/mod.rs numbers it.
enum Activation : int { kNone = 0, kRelu = 1, kRelu6 = 2 };

template <typename Work>
auto guarded(char** error, Work work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::exception& e) {
    *error = strdup(e.what());
  } catch (...) {
    *error = strdup("an unknown C++ exception");
  }
  return {};
}

at::IntArrayRef pair(const int64_t* values) {
  return at::IntArrayRef(values, 2);
}

// Operators of the namespace `mkldnn` are in the dispatcher alone.
at::Tensor* call(const char* name, const char* overload, std::vector<c10::IValue> stack) {
  auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, overload);
  op.callBoxed(&stack);
  return new at::Tensor(stack.at(0).toTensor());
}

// Compiled models compare their inputs with what they were compiled for only where this variable is set; another size would make
// them read and write beyond their tensors. It is set before `main`, as no thread may read the environment meanwhile.
__attribute__((constructor)) void check_inputs() {
  setenv("AOTI_RUNTIME_CHECK_INPUTS", "1", 0);
}

// Compiled models ask for libtorch.so by its name. It lies beside libtorch_cpu.so, where the loader need not look; once loaded, it
// is found.
void load_libtorch() {
  Dl_info found;
  if (dladdr(reinterpret_cast<void*>(&at::globalContext), &found) == 0) return;
  const std::string part = found.dli_fname;
  const std::string path = part.substr(0, part.rfind('/') + 1) + "libtorch.so";
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) throw std::runtime_error(dlerror());
}

}  // namespace

extern "C" {

// Whether oneDNN is part of this libtorch and may be used.
int purlin_torch_has_onednn() {
  return at::hasMKLDNN() && at::globalContext().userEnabledMkldnn();
}

// A convolution's weight in the order that oneDNN computes in, chosen for inputs of this size [N, C, H, W].
at::Tensor* purlin_torch_pack_conv(
    const at::Tensor* weight, const int64_t* padding, const int64_t* stride, int64_t groups, const int64_t* input_size,
    char** error) {
  return guarded(error, [&] {
    const int64_t dilation[2] = {1, 1};
    return call("mkldnn::_reorder_convolution_weight", "",
                {*weight, pair(padding), pair(stride), pair(dilation), groups, at::IntArrayRef(input_size, 4)});
  });
}

// activation(convolution(x)); with `sum`, activation(convolution(x) + sum), written into `sum`.
at::Tensor* purlin_torch_conv(
    const at::Tensor* x, const at::Tensor* weight, const at::Tensor* bias, const int64_t* padding, const int64_t* stride,
    int64_t groups, int activation, const at::Tensor* sum, char** error) {
  return guarded(error, [&] {
    const int64_t dilation[2] = {1, 1};
    const c10::IValue none;
    c10::List<std::optional<at::Scalar>> scalars;
    if (activation == kRelu6) {
      scalars.push_back(at::Scalar(0.0));
      scalars.push_back(at::Scalar(6.0));
    }
    const char* names[] = {"none", "relu", "hardtanh"};
    const std::string name = names[activation];
    if (sum == nullptr) {
      return call("mkldnn::_convolution_pointwise", "",
                  {*x, *weight, *bias, pair(padding), pair(stride), pair(dilation), groups, name, scalars, none});
    }
    const c10::IValue after = activation == kNone ? none : c10::IValue(name);
    return call("mkldnn::_convolution_pointwise_", "binary",
                {*sum, *x, *weight, *bias, pair(padding), pair(stride), pair(dilation), groups, std::string("add"), none, after,
                 scalars, none});
  });
}

// A package of torch._inductor.aoti_compile_and_package. It is unpacked into a temporary folder and its library loaded.
void* purlin_torch_package_open(const char* path, const char* model, size_t runners, int device, char** error) {
  return guarded(error, [&]() -> void* {
    load_libtorch();
    return new AOTIModelPackageLoader(path, model, false, runners, static_cast<c10::DeviceIndex>(device));
  });
}

void purlin_torch_package_close(void* package) {
  delete static_cast<AOTIModelPackageLoader*>(package);
}

// Runs the package's model. Returns its only output; a model of several is an error.
at::Tensor* purlin_torch_package_run(void* package, const at::Tensor* const* inputs, size_t count, char** error) {
  return guarded(error, [&]() -> at::Tensor* {
    std::vector<at::Tensor> given;
    for (size_t i = 0; i < count; i++) given.push_back(*inputs[i]);
    auto outputs = static_cast<AOTIModelPackageLoader*>(package)->run(given);
    if (outputs.size() != 1) {
      *error = strdup(("the model has " + std::to_string(outputs.size()) + " outputs, not one").c_str());
      return nullptr;
    }
    return new at::Tensor(outputs[0]);
  });
}

// The value of a key of the package's metadata; null without error where it has none.
char* purlin_torch_package_metadata(void* package, const char* key, char** error) {
  return guarded(error, [&]() -> char* {
    auto metadata = static_cast<AOTIModelPackageLoader*>(package)->get_metadata();
    auto found = metadata.find(key);
    return found == metadata.end() ? nullptr : strdup(found->second.c_str());
  });
}
}
