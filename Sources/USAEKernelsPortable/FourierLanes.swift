import USAEKernelTypes

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
  static func + (a: ComplexLanes, b: ComplexLanes) -> ComplexLanes { ComplexLanes(re: a.re + b.re, im: a.im + b.im) }

  @inline(__always)
  static func - (a: ComplexLanes, b: ComplexLanes) -> ComplexLanes { ComplexLanes(re: a.re - b.re, im: a.im - b.im) }

  @inline(__always)
  static func * (a: ComplexLanes, scale: Float) -> ComplexLanes {
    let scale = Register(repeating: scale)
    return ComplexLanes(re: a.re * scale, im: a.im * scale)
  }

  /// Itself times -i.
  @inline(__always)
  var timesMinusI: ComplexLanes { ComplexLanes(re: im, im: -re) }

  /// Itself + scale * b.
  @inline(__always)
  func adding(_ scale: Float, _ b: ComplexLanes) -> ComplexLanes {
    let scale = Register(repeating: scale)
    return ComplexLanes(re: multiplyAdd(re, scale, b.re), im: multiplyAdd(im, scale, b.im))
  }

  /// Itself times one complex number, the same for all lanes.
  @inline(__always)
  func times(_ w: ConstantFloats) -> ComplexLanes {
    let wRe = Register(repeating: w[0]), wIm = Register(repeating: w[1])
    return ComplexLanes(re: multiplyAdd(re * wRe, -im, wIm), im: multiplyAdd(im * wRe, re, wIm))
  }
}

#if !USAE_AVX512
  @inline(__always)
  func multiplyAdd(_ sum: Register, _ a: Register, _ b: Register) -> Register {
    #if USAE_FMA || arch(arm64)
      return sum.addingProduct(a, b)
    #else
      return sum + a * b
    #endif
  }
#endif

/// Elements where they lie.
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
    if let twiddles { put(z.times(twiddles + 2 &* (r &- 1)), r, offset) } else { put(z, r, offset) }
  }
}
