import KernelTypes

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Complex numbers in memory: real and imaginary parts, each `stride` floats behind the one before.
struct ComplexView<Pointer> {
  var re, im: Pointer
  var stride: Int

  /// The inverse transform is the transform with real and imaginary parts exchanged before and after it.
  var exchanged: ComplexView { ComplexView(re: im, im: re, stride: stride) }
}

extension ComplexView where Pointer == Floats {
  /// The lanes of a batch, see `FourierKernels`.
  init(lanes: Floats) { self.init(re: lanes, im: lanes + FourierPlan.lanes, stride: FourierPlan.laneStride) }

  var constant: ComplexView<ConstantFloats> { ComplexView<ConstantFloats>(re: re, im: im, stride: stride) }
}

/// How sequences of one length are transformed, sixteen at a time: the passes and their twiddles.
final class FourierPlan: @unchecked Sendable {
  static let lanes = 16
  /// Floats from one element of a batch to the next.
  static let laneStride = 2 * lanes

  let length: Int
  private let passes: [FourierPass]
  private let twiddles: FloatBuffer

  init(length: Int) throws(USAEError) {
    self.length = length
    let radices = Self.radices(of: length)
    // Fewer than `length` twiddles to a pass, and as many roots as its radix.
    twiddles = try FloatBuffer(4 * length * radices.count)
    var place = twiddles.base
    var passes: [FourierPass] = []
    var rest = length, run = 1
    for radix in radices {
      rest /= radix
      let roots = place + 2 * length
      passes.append(FourierPass(radix: radix, groups: rest, run: run, twiddles: place, roots: roots))
      Self.writeTwiddles(radix: radix, groups: rest, to: place)
      for i in 0..<radix { Self.write(i, of: radix, sign: 1, to: roots + 2 * i) }
      place += 4 * length
      run *= radix
    }
    self.passes = passes
  }

  /// The radices of as few passes as possible, since each pass goes through the cache once. Radix 8 is preferred to 16, which
  /// needs more registers than there are; prime factors without a butterfly come last, where there are no twiddles. A length of
  /// 1 has one pass, a copy.
  static func radices(of length: Int) -> [Int] {
    var rest = length
    var radices: [Int] = []
    func take(_ radix: Int) {
      rest /= radix
      radices.append(radix)
    }
    while rest.isMultiple(of: 8), rest.trailingZeroBitCount != 4, rest.trailingZeroBitCount != 8 { take(8) }
    for radix in [16, 4, 2, 7, 5, 3] {
      while rest.isMultiple(of: radix) { take(radix) }
    }
    var prime = 11
    while rest > 1 {
      while !rest.isMultiple(of: prime) { prime += 2 }
      take(prime)
    }
    return radices.isEmpty ? [1] : radices
  }

  private static func writeTwiddles(radix: Int, groups: Int, to place: Floats) {
    var place = place
    for q in 0..<groups {
      for r in 1..<radix {
        write(q * r, of: radix * groups, sign: -1, to: place)
        place += 2
      }
    }
  }

  /// exp(sign 2 pi i index / length), rounded once.
  private static func write(_ index: Int, of length: Int, sign: Double, to place: Floats) {
    let angle = 2 * Double.pi * Double(index % length) / Double(length)
    place[0] = Float(cos(angle))
    place[1] = Float(sign * sin(angle))
  }

  /// Transforms sixteen sequences from `x` to `y`, or into one of the scratch's lanes; returns where they are.
  ///
  /// `x` may be the scratch's first lanes, but no other memory of it. Not normalised in either direction.
  @discardableResult
  func transform(
    _ x: ComplexView<ConstantFloats>, to y: ComplexView<Floats>? = nil, inverse: Bool, scratch: FourierScratch,
    kernels: FourierKernels
  ) -> ComplexView<Floats> {
    var source = x
    var target = ComplexView(lanes: scratch.second)
    for (i, pass) in passes.enumerated() {
      if i > 0 {
        source = target.constant
        target = ComplexView(lanes: i.isMultiple(of: 2) ? scratch.second : scratch.first)
      }
      if i == passes.count - 1, let y { target = y }
      let from = inverse ? source.exchanged : source
      let to = inverse ? target.exchanged : target
      withUnsafePointer(to: pass) {
        kernels.pass($0, from.re, from.im, from.stride, to.re, to.im, to.stride, scratch.kernelScratch)
      }
    }
    return target
  }
}
