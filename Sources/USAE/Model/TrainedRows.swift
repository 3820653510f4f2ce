import KernelTypes

// What an update of a concept reads and writes, as raw pointers: a concept is so little work that with objects, threads would
// wait for each other's reference counts. The pointers are valid while the model and the step's workspace exist.

/// A trained tensor with its moments, and its gradient where it has a buffer.
struct TrainedRows {
  let value, firstMoment, secondMoment: UnsafeMutablePointer<Float>
  let gradient: UnsafeMutablePointer<Float>?
  let stride: Int

  init(_ tensor: Trainable) {
    (value, stride) = (tensor.value.base, tensor.value.stride)
    (firstMoment, secondMoment) = (tensor.firstMoment.base, tensor.secondMoment.base)
    gradient = tensor.gradient?.base
  }

  @inline(__always)
  func row(_ number: Int) -> UnsafeMutablePointer<Float> { value + number &* stride }

  @inline(__always)
  func gradientRow(_ number: Int) -> UnsafeMutablePointer<Float> {
    guard let gradient else { preconditionFailure("gradients are complete: each has a buffer") }
    return gradient + number &* stride
  }

  /// One step of AdamW for a row; all rows of the tensor have its stride.
  @inline(__always)
  func update(_ number: Int, along gradient: UnsafePointer<Float>, _ constants: AdamConstants) {
    let first = number &* stride
    withUnsafePointer(to: constants) {
      kernels.training.adam($0, gradient, firstMoment + first, secondMoment + first, value + first, stride)
    }
  }
}

/// Inputs of the backward pass through BatchNorm, and the gradients of its own parameters.
struct BatchNormRows {
  let mean, weightCovariance, outputVariance, scale: UnsafePointer<Float>
  let scaleGradient, shiftGradient: UnsafeMutablePointer<Float>

  init(_ parameters: BatchNormParameters, _ statistics: BatchStatistics) {
    (mean, weightCovariance) = (UnsafePointer(statistics.mean.base), UnsafePointer(statistics.weightCovariance.base))
    outputVariance = UnsafePointer(statistics.outputVariance.base)
    scale = UnsafePointer(parameters.weight.value.base)
    scaleGradient = TrainedRows(parameters.weight).gradientRow(0)
    shiftGradient = TrainedRows(parameters.bias).gradientRow(0)
  }
}
