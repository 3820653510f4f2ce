import KernelTypes

/// An image that is optimised step by step; the caller supplies the gradient.
///
/// A step asks for views of the image for one model or for several (`views`), takes the gradient of what is to be maximised
/// with respect to them (`addGradient`), and goes uphill (`advance`). Everything random depends on the seed and the step alone,
/// so maximizers with the same seed start from the same image and draw the same crops and noise.
public final class ImageMaximizer: Sendable {
  public struct Options: Sendable {
    public enum Parametrization: Sendable { case phase, spectrum, pixels }
    public enum Optimizer: Sendable { case nadam, adam }

    public var parametrization = Parametrization.phase
    public var optimizer = Optimizer.nadam
    /// Of the canvas, in pixels.
    public var height = 512, width = 512
    /// Planned steps: the learning rate falls to 0 in them, and crops go from `firstCrop` to `lastCrop`.
    public var steps = 256
    public var views = 16
    public var learningRate = 0.3
    /// Side of the crops as a share of the canvas's shorter side.
    public var firstCrop = 1.0, lastCrop = 0.5
    /// Standard deviation of the views' noise, of colours between 0 and 1.
    public var noise = 0.05
    public var totalVariation = 0.0, square = 0.0
    /// Standard deviation of the colours' logits, where a closed form gives the magnitudes.
    public var contrast = 1.0
    public var decorrelatesColours = true
    public var seed: UInt64 = 0
    /// 0 takes the process's default.
    public var threads = 0

    public init() {}
  }

  public let options: Options
  private let state: State
  private let lock = ReadWriteLock()

  /// - Parameters:
  ///   - magnitude: of the frequencies, [3, height, width / 2 + 1], for phases and spectra; nil takes a closed form.
  ///   - start: an image [3, height, width] of colours between 0 and 1; nil starts from noise.
  package init(_ options: Options, magnitude: UnsafePointer<Float>?, start: UnsafePointer<Float>?) throws(USAEError) {
    try checkKernels()
    try options.validate()
    self.options = options
    state = try State(options, magnitude: magnitude, start: start, work: InterruptibleWork(wanted: options.threads))
  }

  public var stepCount: Int {
    get throws(USAEError) { try lock.reading(poll: nil) { () throws(USAEError) in state.step } }
  }

  /// Views of this step for a model that looks at `height` x `width` pixels, `out` [views, 3, height, width].
  package func views(
    height: Int, width: Int, scale: PixelScale, out: UnsafeMutablePointer<Float>, poll: (@Sendable () -> Bool)?
  ) throws(USAEError) {
    try Self.check(height, width)
    let work = InterruptibleWork(wanted: options.threads, poll: poll)
    try lock.writing(poll: poll) { () throws(USAEError) in
      let image = try state.renderedImage(work: work)
      let boxes = state.boxes
      try image.views(
        boxes, with: state.resampler(to: (height, width)), scale: scale,
        noise: ViewNoise(deviation: options.noise, seed: options.seed, step: state.step), to: out, work: work)
    }
  }

  /// Takes the gradient of the objective with respect to such views, [views, 3, height, width]. Only the direction of the
  /// resulting gradient of the image counts, times `weight`, so that models count the same whatever the scales of their
  /// objectives.
  ///
  /// - Returns: the length of the image's gradient, before that. Where it is 0, nothing was added.
  package func addGradient(
    _ gradient: UnsafePointer<Float>, height: Int, width: Int, scale: PixelScale, weight: Double,
    poll: (@Sendable () -> Bool)?
  ) throws(USAEError) -> Double {
    try Self.check(height, width)
    guard (-1e6...1e6).contains(weight) else {
      throw .invalidArgument(name: "weight", expected: "a number from -1e6 to 1e6", got: "\(weight)")
    }
    let work = InterruptibleWork(wanted: options.threads, poll: poll)
    return try lock.writing(poll: poll) { () throws(USAEError) in
      try state.add(gradient, height, width, scale, weight, work: work)
    }
  }

  /// One step uphill along the gradients that were added; they are used up.
  package func advance(poll: (@Sendable () -> Bool)?) throws(USAEError) {
    let work = InterruptibleWork(wanted: options.threads, poll: poll)
    try lock.writing(poll: poll) { () throws(USAEError) in
      guard state.step < options.steps else {
        throw .invalidArgument(
          name: "steps", expected: "at most the \(options.steps) that were planned", got: "one more",
          remedy: "make a maximizer of more steps")
      }
      try state.advance(options, work: work)
    }
  }

  /// The image [3, height, width], colours between 0 and 1.
  package func image(_ out: UnsafeMutablePointer<Float>) throws(USAEError) {
    try lock.writing(poll: nil) { () throws(USAEError) in
      try state.renderedImage(work: InterruptibleWork(wanted: options.threads)).copy(to: out)
    }
  }

  /// How much each pixel [height, width] has contributed to the objective: the size of its gradients (each step's scaled to
  /// length 1), summed over channels and steps.
  package func attribution(_ out: UnsafeMutablePointer<Float>) throws(USAEError) {
    try lock.reading(poll: nil) { () throws(USAEError) in
      out.update(from: state.attribution.base, count: options.height * options.width)
    }
  }

  /// For tests: the gradient with respect to the image's colours [3, height, width] that was added in this step, and that with
  /// respect to the planes.
  package func gradients(colours: UnsafeMutablePointer<Float>, planes: UnsafeMutablePointer<Float>) throws(USAEError) {
    let work = InterruptibleWork(wanted: options.threads)
    try lock.writing(poll: nil) { () throws(USAEError) in
      _ = try state.renderedImage(work: work)
      state.gradient.copy(to: colours)
      try state.computeGradient(work: work)
      planes.update(from: state.planeGradient.base, count: 3 * options.height * options.width)
    }
  }

  /// Where the views of this step are.
  package var boxes: [Box] {
    get throws(USAEError) { try lock.reading(poll: nil) { () throws(USAEError) in state.boxes } }
  }

  static func check(_ height: Int, _ width: Int) throws(USAEError) {
    try UniversalSAE.require("height of the views", height, in: FourierTransform.sides)
    try UniversalSAE.require("width of the views", width, in: FourierTransform.sides)
  }
}

extension ImageMaximizer.Options {
  func validate() throws(USAEError) {
    try UniversalSAE.require("height", height, in: FourierTransform.sides)
    try UniversalSAE.require("width", width, in: FourierTransform.sides)
    try UniversalSAE.require("steps", steps, in: 1...1 << 30)
    try UniversalSAE.require("views", views, in: 1...1024)
    try UniversalSAE.require("n_threads", threads, in: 0...1024)
    try UniversalSAE.require("learning_rate", learningRate, in: 0...1e6)
    try UniversalSAE.require("first_crop", firstCrop, in: 0.001...1)
    try UniversalSAE.require("last_crop", lastCrop, in: 0.001...1)
    try UniversalSAE.require("noise", noise, in: 0...10)
    try UniversalSAE.require("total_variation", totalVariation, in: 0...1e6)
    try UniversalSAE.require("l2", square, in: 0...1e6)
    try UniversalSAE.require("contrast", contrast, in: 0.001...100)
  }
}
