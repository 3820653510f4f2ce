import KernelTypes

/// Random views of a canvas: crops, resized, with noise.
///
/// Crops and noise depend on seed, step and view alone, so every model sees the same crops, and models of the same input size
/// see the same noise: only the models differ.
struct ViewSampler: Sendable {
  let seed: UInt64
  let views: Int
  let steps: Int
  /// Side of the crops as a share of the canvas's shorter side, in the first step and in the last.
  let firstCrop, lastCrop: Double
  /// Standard deviation, of colours between 0 and 1.
  let noise: Double

  func side(step: Int, of canvas: (height: Int, width: Int)) -> Int {
    let progress = steps > 1 ? Double(step) / Double(steps - 1) : 0
    let share = firstCrop + (lastCrop - firstCrop) * progress
    let shorter = min(canvas.height, canvas.width)
    return min(shorter, max(1, Int((share * Double(shorter)).rounded())))
  }

  /// Centres are uniform over the canvas, and crops then moved inside: with uniform corners the canvas's edge would hardly
  /// ever be seen.
  func boxes(step: Int, of canvas: (height: Int, width: Int)) -> [Box] {
    let side = side(step: step, of: canvas)
    let random = CounterRandom(seed: seed, stream: .viewBoxes, part: step)
    func start(_ position: Int, _ length: Int) -> Int {
      min(max(random.index(UInt64(position), below: length) - side / 2, 0), length - side)
    }
    return (0..<views).map { view in
      Box(top: start(2 * view, canvas.height), left: start(2 * view + 1, canvas.width), height: side, width: side)
    }
  }
}

/// A model's normalisation of colours x between 0 and 1: (x - mean) / standard deviation, by channel.
package struct PixelScale: Sendable {
  package let mean, deviation: [Float]

  package init(mean: [Float], deviation: [Float]) throws(USAEError) {
    guard mean.count == 3, deviation.count == 3, mean.allSatisfy({ (-1e6...1e6).contains($0) }),
      deviation.allSatisfy({ (1e-6...1e6).contains($0) })
    else {
      throw .invalidArgument(
        name: "mean and std", expected: "three numbers each, from -1e6 and 1e-6 to 1e6", got: "\(mean) and \(deviation)",
        remedy: "they are of pixels between 0 and 1")
    }
    self.mean = mean
    self.deviation = deviation
  }
}

/// The noise of one step's views.
struct ViewNoise: Sendable {
  let deviation: Double
  let seed: UInt64
  let step: Int

  static let none = ViewNoise(deviation: 0, seed: 0, step: 0)

  fileprivate func constants(_ scale: PixelScale, _ channel: Int) -> NoisyRowConstants {
    CounterRandom(seed: seed, stream: .viewNoise).rowNoise(
      step: step, deviation: deviation, scale: 1 / scale.deviation[channel],
      shift: -scale.mean[channel] / scale.deviation[channel])
  }
}

extension Canvas {
  /// Writes boxes of the canvas as images [boxes, 3, height, width] on a model's scale, with noise.
  func views(
    _ boxes: [Box], with resampler: Resampler, scale: PixelScale, noise: ViewNoise, to out: Floats, work: InterruptibleWork
  ) throws(USAEError) {
    let scratch = try resampler.makeScratch(work.threads)
    let (height, width) = (resampler.height, resampler.width)
    let rowScratch = try makeScratch(work.threads, paddedWidth(width))
    try work.run(boxes.count * Self.channels) { piece, worker in
      let (view, channel) = piece.quotientAndRemainder(dividingBy: Self.channels)
      let box = boxes[view]
      let source = row(channel, box.top) + box.left
      let own = scratch[worker], noisy = rowScratch[worker].base
      var constants = noise.constants(scale, channel)
      for first in Swift.stride(from: 0, to: height, by: Resampler.blockRows) {
        let rows = first..<min(height, first + Resampler.blockRows)
        resampler.forward(source, stride, rows: rows, scratch: own)
        for y in rows {
          constants.counter.0 = UInt32(truncatingIfNeeded: piece * FourierTransform.sides.upperBound + y)
          kernels.images.noisyRow(&constants, own.row(y - first), paddedWidth(width), noisy)
          (out + (piece * height + y) * width).update(from: noisy, count: width)
        }
      }
    }
  }

  /// Adds the gradient with respect to the canvas that follows from one with respect to such images, `gradient` [boxes.count *
  /// 3 * height, padded width].
  ///
  /// A piece of work owns rows of the canvas and takes the views in order, so sums do not depend on threads.
  func addAdjoint(
    of gradient: PaddedMatrix, _ boxes: [Box], with resampler: Resampler, work: InterruptibleWork
  ) throws(USAEError) {
    let scratch = try resampler.makeScratch(work.threads)
    let bands = (height + Resampler.blockRows - 1) / Resampler.blockRows
    try work.run(Self.channels * bands) { piece, worker in
      let (channel, band) = piece.quotientAndRemainder(dividingBy: bands)
      let owned = band * Resampler.blockRows..<min(height, (band + 1) * Resampler.blockRows)
      let own = scratch[worker]
      for (view, box) in boxes.enumerated() {
        let rows = owned.clamped(to: box.top..<box.top + box.height)
        if rows.isEmpty { continue }
        resampler.adjoint(
          gradient.row((view * Self.channels + channel) * resampler.height), gradient.stride,
          rows: rows.lowerBound - box.top..<rows.upperBound - box.top, scratch: own)
        for (offset, y) in rows.enumerated() {
          let target = row(channel, y) + box.left, source = own.row(offset)
          for x in 0..<box.width { target[x] += source[x] }
        }
      }
    }
  }
}
