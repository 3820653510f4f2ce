import Synchronization
import KernelTypes

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension ImageMaximizer {
  /// Everything that changes; guarded by the maximizer's lock.
  final class State: @unchecked Sendable {
    var step = 0
    let attribution: FloatBuffer
    /// The gradient with respect to the image's colours, summed over models in this step.
    let gradient: Canvas
    let planeGradient: FloatBuffer
    private let parametrization: any ImageParametrization
    private let ascent: Ascent
    private let colourSpace: ColourSpace
    private let sampler: ViewSampler
    private let planes: FloatBuffer
    private let image: Canvas
    private let incoming: Canvas
    private let valueGradient: FloatBuffer
    private var imageIsCurrent = false
    /// Resamplers from this step's crops, by the size of the views.
    private var resamplers: [Size: Resampler] = [:]
    private var received: [Size: PaddedMatrix] = [:]

    private struct Size: Hashable { let height, width: Int }

    init(_ options: Options, magnitude: ConstantFloats?, start: ConstantFloats?, work: InterruptibleWork) throws(USAEError) {
      let pixels = options.height * options.width
      colourSpace = options.decorrelatesColours ? .decorrelated : .rgb
      planes = try FloatBuffer(paddedWidth(3 * pixels) + 16)
      planeGradient = try FloatBuffer(planes.count)
      if let start {
        try Self.checkColours(start, 3 * pixels)
        colourSpace.planes(of: start, count: pixels, to: planes.base)
      }
      parametrization = try Self.parametrization(options, magnitude, start == nil ? nil : planes, work: work)
      valueGradient = try FloatBuffer(parametrization.values.count)
      ascent = try Ascent(
        options.optimizer, rate: options.learningRate, steps: options.steps,
        count: parametrization.values.count)
      sampler = ViewSampler(
        seed: options.seed, views: options.views, steps: options.steps, firstCrop: options.firstCrop,
        lastCrop: options.lastCrop, noise: options.noise)
      image = try Canvas(height: options.height, width: options.width)
      gradient = try Canvas(height: options.height, width: options.width)
      incoming = try Canvas(height: options.height, width: options.width)
      attribution = try FloatBuffer(pixels)
      _ = try renderedImage(work: work)  // the first views would render it; extreme magnitudes are refused here
    }

    private static func checkColours(_ image: ConstantFloats, _ count: Int) throws(USAEError) {
      for i in 0..<count where !(0...1).contains(image[i]) {
        throw .invalidArgument(
          name: "start", expected: "colours from 0 to 1", got: "\(image[i])", remedy: "divide 8-bit colours by 255")
      }
    }

    private static func parametrization(
      _ options: Options, _ magnitude: ConstantFloats?, _ start: FloatBuffer?, work: InterruptibleWork
    ) throws(USAEError) -> any ImageParametrization {
      let random = CounterRandom(seed: options.seed, stream: .imageStart)
      let pixels = options.height * options.width
      let layout = try SpectrumLayout(height: options.height, width: options.width)
      let sizes: FloatBuffer
      if let magnitude {
        sizes = try FloatBuffer(layout.padded)
        for i in 0..<layout.count {
          guard magnitude[i].isFinite, magnitude[i] >= 0 else {
            throw .invalidArgument(name: "magnitude", expected: "finite numbers from 0 up", got: "\(magnitude[i])")
          }
        }
        sizes.base.update(from: magnitude, count: layout.count)
      } else {
        let natural = options.parametrization == .phase
        sizes = try natural ? MagnitudeTemplate.natural(layout) : MagnitudeTemplate.inverseFrequency(layout)
        MagnitudeTemplate.normalize(sizes, layout, contrast: options.contrast)
      }
      if options.parametrization == .phase, let start {
        return try PhaseParametrization(layout: layout, magnitude: sizes, start: start, work: work)
      }
      if options.parametrization == .phase {
        return try PhaseParametrization(layout: layout, magnitude: sizes, random: random)
      }
      let first: FloatBuffer
      if let start { first = start } else { first = try noise(count: 3 * pixels, contrast: options.contrast, random) }
      if options.parametrization == .pixels { return try PixelParametrization(start: first) }
      return try SpectrumParametrization(layout: layout, magnitude: sizes, start: first, work: work)
    }

    /// Faint white noise, the same for every parametrization.
    private static func noise(count: Int, contrast: Double, _ random: CounterRandom) throws(USAEError) -> FloatBuffer {
      let planes = try FloatBuffer(paddedWidth(count) + 16)
      random.fillNormals(UnsafeMutableBufferPointer(start: planes.base, count: count), from: 0)
      for i in 0..<count { planes.base[i] *= Float(0.1 * contrast) }
      return planes
    }

    // MARK: A step

    var boxes: [Box] { sampler.boxes(step: step, of: (image.height, image.width)) }

    func renderedImage(work: InterruptibleWork) throws(USAEError) -> Canvas {
      if !imageIsCurrent {
        try parametrization.render(to: planes, work: work)
        try colourSpace.colours(planes.base, to: image, work: work)
        guard image.isFinite else {
          throw .invalidArgument(
            name: "magnitude", expected: "a spectrum whose image float32 can hold", got: "one that overflows",
            remedy: "scale it so that colours' logits are some units large, and keep learning_rate below 1")
        }
        imageIsCurrent = true
      }
      return image
    }

    func resampler(to size: (height: Int, width: Int)) -> Resampler {
      let key = Size(height: size.height, width: size.width)
      let side = sampler.side(step: step, of: (image.height, image.width))
      if let found = resamplers[key], found.boxHeight == side { return found }
      let made = Resampler(from: (side, side), to: size)
      resamplers[key] = made
      return made
    }

    func add(
      _ values: ConstantFloats, _ height: Int, _ width: Int, _ scale: PixelScale, _ weight: Double, work: InterruptibleWork
    ) throws(USAEError) -> Double {
      let size = Size(height: height, width: width)
      let boxes = self.boxes
      let rows = boxes.count * Canvas.channels * height
      let copy: PaddedMatrix
      if let found = received[size] { copy = found } else { copy = try PaddedMatrix(rows: rows, columns: width) }
      received[size] = copy
      let unit = try Self.copy(values, height, scale, to: copy, work: work)
      incoming.storage.zero()
      try incoming.addAdjoint(of: copy, boxes, with: resampler(to: (height, width)), work: work)
      let norm = try incoming.norm(work: work)
      guard norm > 0 else { return 0 }
      kernels.rows.addScaled(Float(weight / norm), incoming.storage.base, incoming.storage.count & ~15, gradient.storage.base)
      return norm / unit
    }

    /// Copies a gradient to padded rows in units of colours, and checks every number.
    ///
    /// - Returns: 1, or the power of two by which the gradient was scaled to stay within float32.
    private static func copy(
      _ values: ConstantFloats, _ height: Int, _ scale: PixelScale, to copy: PaddedMatrix, work: InterruptibleWork
    ) throws(USAEError) -> Double {
      let factors = scale.deviation.map { 1 / $0 }
      let bits = Atomic<Int32>(0)  // of the largest magnitude: bits order as magnitudes do, with infinity and NaN above all
      try work.runBlocks(copy.rows, of: 64) { _, range, _ in
        var largest: Int32 = 0
        for row in range {
          let factor = factors[row / height % Canvas.channels]
          let source = values + row * copy.columns, target = copy.row(row)
          for x in 0..<copy.columns {
            largest = max(largest, Int32(bitPattern: source[x].bitPattern & 0x7FFF_FFFF))
            target[x] = source[x] * factor
          }
        }
        bits.max(largest, ordering: .relaxed)
      }
      let largest = Float(bitPattern: UInt32(bitPattern: bits.load(ordering: .relaxed)))
      guard largest.isFinite else {
        let count = copy.rows * copy.columns
        let place = (0..<count).first { !values[$0].isFinite } ?? 0
        throw .invalidArgument(
          name: "gradient", expected: "finite numbers",
          got: "NaN or infinity in view \(place / (height * Canvas.channels * copy.columns))",
          remedy: "nothing was changed; look at the model's numbers, float16 overflows easily")
      }
      if largest == 0 || (0x1p-60...0x1p60).contains(largest) { return 1 }
      let unit = exp2(-Double(largest.exponent))
      try work.runBlocks(copy.rows, of: 64) { _, range, _ in
        for row in range {
          let factor = unit * Double(factors[row / height % Canvas.channels])
          let source = values + row * copy.columns, target = copy.row(row)
          for x in 0..<copy.columns { target[x] = Float(Double(source[x]) * factor) }
        }
      }
      return unit
    }

    /// Computes the gradient with respect to the free numbers from that of the colours.
    func computeGradient(work: InterruptibleWork) throws(USAEError) {
      let scratch = try makeScratch(work.threads, 3 * paddedWidth(image.width))
      try colourSpace.adjoint(of: gradient, at: image, to: planeGradient.base, scratch: scratch, work: work)
      try parametrization.pullBack(planeGradient, to: valueGradient, work: work)
    }

    func advance(_ options: Options, work: InterruptibleWork) throws(USAEError) {
      try work.check()
      _ = try renderedImage(work: work)
      // From here on nothing interrupts: a step is done as a whole or not at all.
      let work = InterruptibleWork(threads: work.threads)
      try noteAttribution(work: work)
      Regularization(totalVariation: options.totalVariation, square: options.square)
        .subtractSlopes(at: image, from: gradient)
      try computeGradient(work: work)
      ascent.ascend(parametrization.values, along: valueGradient, work: work)
      gradient.storage.zero()
      imageIsCurrent = false
      step += 1
    }

    private func noteAttribution(work: InterruptibleWork) throws(USAEError) {
      try work.runBlocks(image.height, of: 16) { _, rows, _ in
        for y in rows {
          let sums = self.attribution.base + y * self.image.width
          for channel in 0..<Canvas.channels {
            let slopes = self.gradient.row(channel, y)
            for x in 0..<self.image.width { sums[x] += abs(slopes[x]) }
          }
        }
      }
    }
  }
}
