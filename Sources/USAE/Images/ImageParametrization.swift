import KernelTypes

/// A parametrization of an image: free numbers, the planes [3, height, width] that they stand for, and the backward pass.
protocol ImageParametrization: Sendable {
  /// Free numbers, padded with numbers that are never used.
  var values: FloatBuffer { get }
  /// The planes of the values, before colours.
  func render(to planes: FloatBuffer, work: InterruptibleWork) throws(USAEError)
  /// Computes the gradient with respect to the values from that of the planes.
  func pullBack(_ planes: FloatBuffer, to gradient: FloatBuffer, work: InterruptibleWork) throws(USAEError)
}

/// The planes themselves.
struct PixelParametrization: ImageParametrization {
  let values: FloatBuffer

  init(start: FloatBuffer) throws(USAEError) {
    values = try FloatBuffer(start.count)
    values.copy(from: start)
  }

  func render(to planes: FloatBuffer, work: InterruptibleWork) { planes.copy(from: values) }

  func pullBack(_ planes: FloatBuffer, to gradient: FloatBuffer, work: InterruptibleWork) { gradient.copy(from: planes) }
}

/// The planes' spectra, divided by the magnitude that each frequency has in images, so that steps are as large for coarse
/// structure as for fine (Olah et al., 2017).
final class SpectrumParametrization: ImageParametrization {
  let values: FloatBuffer
  private let layout: SpectrumLayout
  private let magnitude: FloatBuffer
  private let spectrum: SplitSpectrum

  /// - Parameter start: planes to start from.
  init(layout: SpectrumLayout, magnitude: FloatBuffer, start: FloatBuffer, work: InterruptibleWork) throws(USAEError) {
    self.layout = layout
    self.magnitude = magnitude
    spectrum = try SplitSpectrum(layout)
    values = try FloatBuffer(2 * layout.padded)
    try layout.forward(start, to: spectrum, work: work)
    for i in 0..<layout.count where magnitude.base[i] > 0 {
      values.base[i] = spectrum.re.base[i] / magnitude.base[i]
      values.base[layout.padded + i] = spectrum.im.base[i] / magnitude.base[i]
    }
  }

  func render(to planes: FloatBuffer, work: InterruptibleWork) throws(USAEError) {
    for i in 0..<layout.count {
      spectrum.re.base[i] = values.base[i] * magnitude.base[i]
      spectrum.im.base[i] = values.base[layout.padded + i] * magnitude.base[i]
    }
    try layout.inverse(spectrum, to: planes, work: work)
  }

  func pullBack(_ planes: FloatBuffer, to gradient: FloatBuffer, work: InterruptibleWork) throws(USAEError) {
    try layout.forward(planes, to: spectrum, work: work)
    let share = 1 / Float(layout.height * layout.width)
    for row in 0..<3 * layout.height {
      for bin in 0..<layout.bins {
        let i = row * layout.bins + bin
        let weight = (layout.isSelfConjugate(bin) ? 1 : 2) * share * magnitude.base[i]
        gradient.base[i] = spectrum.re.base[i] * weight
        gradient.base[layout.padded + i] = spectrum.im.base[i] * weight
      }
    }
  }
}

/// The planes' phases alone, the magnitudes being those of natural images: MACO (Fel et al., 2023).
///
/// In the columns of a half spectrum that stand for themselves and their mirror images (the first, and of an even width the
/// last) a frequency and its opposite are both there, and an image is real only if their phases are opposite: one of them is
/// free and the other follows. Then the image has exactly the magnitudes that were asked for, and its variance is constant.
/// Frequency 0 has no phase; its number, the mean of a plane, is a free number of its own.
final class PhaseParametrization: ImageParametrization {
  let values: FloatBuffer
  private let layout: SpectrumLayout
  private let magnitude: FloatBuffer
  private let spectrum: SplitSpectrum
  private let gradientSpectrum: SplitSpectrum

  /// A mean moves all pixels, so its steps are smaller than those of phases.
  private static let meanShare: Float = 0.1

  private init(layout: SpectrumLayout, magnitude: FloatBuffer) throws(USAEError) {
    self.layout = layout
    self.magnitude = magnitude
    spectrum = try SplitSpectrum(layout)
    gradientSpectrum = try SplitSpectrum(layout)
    values = try FloatBuffer(layout.padded + 16)
  }

  /// Random phases, uniform, and means of 0.
  convenience init(layout: SpectrumLayout, magnitude: FloatBuffer, random: CounterRandom) throws(USAEError) {
    try self.init(layout: layout, magnitude: magnitude)
    for i in 0..<layout.count { values.base[i] = random.uniform(UInt64(i), limit: .pi) }
    layout.forEachOwnMirror { i in self.values.base[i] = self.values.base[i] < 0 ? .pi : 0 }
  }

  /// The phases of an image, and its means.
  convenience init(
    layout: SpectrumLayout, magnitude: FloatBuffer, start: FloatBuffer, work: InterruptibleWork
  ) throws(USAEError) {
    try self.init(layout: layout, magnitude: magnitude)
    try layout.forward(start, to: spectrum, work: work)
    for i in 0..<layout.count { values.base[i] = layout.phase(spectrum, i) }
    for channel in 0..<3 {
      let mean = spectrum.re.base[channel * layout.plane] / Float(layout.height * layout.width)
      values.base[layout.padded + channel] = mean / Self.meanShare
    }
  }

  func render(to planes: FloatBuffer, work: InterruptibleWork) throws(USAEError) {
    let size = 1 << 14
    try work.runBlocks(layout.padded, of: size) { _, range, _ in
      let i = range.lowerBound
      kernels.images.spectrum(
        values.base + i, magnitude.base + i, range.count, spectrum.re.base + i, spectrum.im.base + i)
    }
    layout.forEachMirrored { free, mirror in
      self.spectrum.re.base[mirror] = self.spectrum.re.base[free]
      self.spectrum.im.base[mirror] = -self.spectrum.im.base[free]
    }
    layout.forEachOwnMirror { self.spectrum.im.base[$0] = 0 }
    for channel in 0..<3 {
      let mean = values.base[layout.padded + channel] * Self.meanShare
      spectrum.re.base[channel * layout.plane] = mean * Float(layout.height * layout.width)
    }
    try layout.inverse(spectrum, to: planes, work: work)
  }

  /// Reads the spectrum that `render` left.
  func pullBack(_ planes: FloatBuffer, to gradient: FloatBuffer, work: InterruptibleWork) throws(USAEError) {
    try layout.forward(planes, to: gradientSpectrum, work: work)
    // Twice, since a bin stands for its mirror image too, whether that is outside the half spectrum or tied to the bin.
    let weight = 2 / Float(layout.height * layout.width)
    try work.runBlocks(layout.padded, of: 1 << 14) { _, range, _ in
      let i = range.lowerBound
      kernels.images.phaseGradient(
        spectrum.re.base + i, spectrum.im.base + i, gradientSpectrum.re.base + i, gradientSpectrum.im.base + i, weight,
        range.count, gradient.base + i)
    }
    layout.forEachMirrored { _, mirror in gradient.base[mirror] = 0 }
    layout.forEachOwnMirror { gradient.base[$0] = 0 }
    for channel in 0..<3 {
      gradient.base[layout.padded + channel] = gradientSpectrum.re.base[channel * layout.plane] * Self.meanShare
    }
  }
}
