import CIntrinsics
import KernelTypes

// Complex numbers of several transforms side by side, as many as fit a register: butterflies need all of their elements at
// once.
#if USAE_AVX512
  typealias Register = SIMD16<Float>
  let lanesAtOnce = 16
#elseif USAE_AVX2
  typealias Register = SIMD8<Float>
  let lanesAtOnce = 8
#else
  typealias Register = SIMD4<Float>
  let lanesAtOnce = 4
#endif

struct ComplexLanes {
  var re, im: Register

  @inline(__always)
  static var zero: ComplexLanes { ComplexLanes(re: .zero, im: .zero) }

  @inline(__always)
  static func + (a: ComplexLanes, b: ComplexLanes) -> ComplexLanes {
    ComplexLanes(re: usae_add(a.re, b.re), im: usae_add(a.im, b.im))
  }

  @inline(__always)
  static func - (a: ComplexLanes, b: ComplexLanes) -> ComplexLanes {
    ComplexLanes(re: usae_subtract(a.re, b.re), im: usae_subtract(a.im, b.im))
  }

  @inline(__always)
  static func * (a: ComplexLanes, scale: Float) -> ComplexLanes {
    let scale = Register(repeating: scale)
    return ComplexLanes(re: usae_multiply(a.re, scale), im: usae_multiply(a.im, scale))
  }

  /// a - i b.
  @inline(__always)
  static func subtractI(_ a: ComplexLanes, _ b: ComplexLanes) -> ComplexLanes {
    ComplexLanes(re: usae_add(a.re, b.im), im: usae_subtract(a.im, b.re))
  }

  /// a + i b.
  @inline(__always)
  static func addI(_ a: ComplexLanes, _ b: ComplexLanes) -> ComplexLanes {
    ComplexLanes(re: usae_subtract(a.re, b.im), im: usae_add(a.im, b.re))
  }

  /// Itself + scale * b.
  @inline(__always)
  func adding(_ scale: Float, _ b: ComplexLanes) -> ComplexLanes {
    let scale = Register(repeating: scale)
    return ComplexLanes(re: usae_multiply_add(re, scale, b.re), im: usae_multiply_add(im, scale, b.im))
  }

  @inline(__always)
  var timesMinusI: ComplexLanes { ComplexLanes(re: im, im: usae_subtract(.zero, re)) }

  /// Itself times one complex number, the same for all lanes.
  @inline(__always)
  func times(_ re: Float, _ im: Float) -> ComplexLanes {
    let wRe = Register(repeating: re), wIm = Register(repeating: im), minusWIm = Register(repeating: -im)
    return ComplexLanes(
      re: usae_multiply_add(usae_multiply(self.re, wRe), self.im, minusWIm),
      im: usae_multiply_add(usae_multiply(self.im, wRe), self.re, wIm))
  }
}

/// Elements in memory.
struct ComplexSource {
  var re, im: ConstantFloats

  @inline(__always)
  subscript(offset: Int) -> ComplexLanes {
    ComplexLanes(
      re: UnsafeRawPointer(re + offset).loadUnaligned(as: Register.self),
      im: UnsafeRawPointer(im + offset).loadUnaligned(as: Register.self))
  }
}

/// Where the results of a pass go. Result r of a butterfly is `step` floats behind result r - 1.
struct ComplexTarget {
  var re, im: Floats
  var step: Int

  @inline(__always)
  func put(_ z: ComplexLanes, _ r: Int, _ offset: Int) {
    UnsafeMutableRawPointer(re + (r &* step &+ offset)).storeBytes(of: z.re, as: Register.self)
    UnsafeMutableRawPointer(im + (r &* step &+ offset)).storeBytes(of: z.im, as: Register.self)
  }

  /// Result r > 0 times its twiddle; without `twiddles`, all of which are then 1, the result itself.
  @inline(__always)
  func put(_ z: ComplexLanes, _ r: Int, _ offset: Int, _ twiddles: ConstantFloats?) {
    if let twiddles { put(z.times(twiddles[2 &* r &- 2], twiddles[2 &* r &- 1]), r, offset) } else { put(z, r, offset) }
  }
}
