#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Real and imaginary parts [3, height, width / 2 + 1].
final class SplitSpectrum: Sendable {
  let re, im: FloatBuffer

  init(_ layout: SpectrumLayout) throws(USAEError) {
    re = try FloatBuffer(layout.padded)
    im = try FloatBuffer(layout.padded)
  }
}

/// The layout of half spectra of three planes, and their transforms.
struct SpectrumLayout: Sendable {
  let height, width: Int
  private let transform: FourierTransform

  init(height: Int, width: Int) throws(USAEError) {
    self.height = height
    self.width = width
    transform = try FourierTransform(height: height, width: width)
  }

  var bins: Int { width / 2 + 1 }
  /// Numbers of one plane, and of three.
  var plane: Int { height * bins }
  var count: Int { 3 * plane }
  /// Three planes in whole vectors.
  var padded: Int { paddedWidth(count) }

  func forward(_ planes: FloatBuffer, to spectrum: SplitSpectrum, work: InterruptibleWork) throws(USAEError) {
    try transform.forward(planes.base, planes: 3, re: spectrum.re.base, im: spectrum.im.base, work: work)
  }

  func inverse(_ spectrum: SplitSpectrum, to planes: FloatBuffer, work: InterruptibleWork) throws(USAEError) {
    try transform.inverse(re: spectrum.re.base, im: spectrum.im.base, planes: 3, image: planes.base, work: work)
  }

  func phase(_ spectrum: SplitSpectrum, _ i: Int) -> Float { atan2(spectrum.im.base[i], spectrum.re.base[i]) }

  /// Whether a column of the half spectrum holds both frequencies and their opposites.
  func isSelfConjugate(_ bin: Int) -> Bool { bin == 0 || 2 * bin == width }

  /// Each pair of opposite frequencies that are both in the half spectrum.
  func forEachMirrored(_ body: (_ free: Int, _ mirror: Int) -> Void) {
    forEachSelfConjugateColumn { first in
      for y in 1..<max(1, (height + 1) / 2) { body(first + y * bins, first + (height - y) * bins) }
    }
  }

  /// Each frequency that is its own opposite; its number is real. The first of each plane is frequency 0.
  func forEachOwnMirror(_ body: (Int) -> Void) {
    forEachSelfConjugateColumn { first in
      body(first)
      if height.isMultiple(of: 2) { body(first + height / 2 * bins) }
    }
  }

  private func forEachSelfConjugateColumn(_ body: (_ first: Int) -> Void) {
    for channel in 0..<3 {
      body(channel * plane)
      if width.isMultiple(of: 2) { body(channel * plane + width / 2) }
    }
  }
}
