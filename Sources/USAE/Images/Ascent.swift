import KernelTypes

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Adam or NAdam uphill, as in PyTorch, with a learning rate that falls as a cosine.
final class Ascent: @unchecked Sendable {
  private let method: ImageMaximizer.Options.Optimizer
  private let rate: Double
  private let steps: Int
  private let first, second: FloatBuffer
  private var momentumProduct = 1.0
  private var step = 0

  private static let beta1 = 0.9, beta2 = 0.999
  /// Gradients of images are tiny, so PyTorch's 1e-8 would suppress the small ones.
  private static let epsilon = 1e-12
  private static let momentumDecay = 0.004

  /// - Parameter count: the number of parameters, a multiple of 16.
  init(_ method: ImageMaximizer.Options.Optimizer, rate: Double, steps: Int, count: Int) throws(USAEError) {
    self.method = method
    self.rate = rate
    self.steps = steps
    first = try FloatBuffer(count)
    second = try FloatBuffer(count)
  }

  func ascend(_ parameters: FloatBuffer, along gradient: FloatBuffer, work: InterruptibleWork) {
    step += 1
    var constants = nextConstants()
    withUnsafePointer(to: &constants) { pointer in
      nonisolated(unsafe) let constants = UnsafeRawPointer(pointer)
      let size = 1 << 14
      work.runToEnd((parameters.count + size - 1) / size) { block, _ in
        let start = block * size
        kernels.images.ascend(
          constants, gradient.base + start, self.first.base + start, self.second.base + start, parameters.base + start,
          min(size, parameters.count - start))
      }
    }
  }

  private func nextConstants() -> AscentConstants {
    let t = Double(step)
    let rate = self.rate * 0.5 * (1 + cos(Double.pi * (t - 1) / Double(steps)))
    var ofGradient = 0.0, ofMoment = rate / (1 - pow(Self.beta1, t))
    if method == .nadam {
      let now = momentum(t), next = momentum(t + 1)
      momentumProduct *= now
      ofGradient = rate * (1 - now) / (1 - momentumProduct)
      ofMoment = rate * next / (1 - momentumProduct * next)
    }
    return AscentConstants(
      beta1: Float(Self.beta1), beta2: Float(Self.beta2), ofGradient: Float(ofGradient), ofMoment: Float(ofMoment),
      inverseRootCorrection: Float(1 / (1 - pow(Self.beta2, t)).squareRoot()), epsilon: Float(Self.epsilon))
  }

  private func momentum(_ t: Double) -> Double { Self.beta1 * (1 - 0.5 * pow(0.96, t * Self.momentumDecay)) }
}
