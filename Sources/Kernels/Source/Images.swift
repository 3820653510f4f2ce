import KernelTypes

// From a spectrum of free phases to colours between 0 and 1, and back with gradients.

private typealias Words = SIMD16<Int32>

/// Adding it rounds a number to a whole one, which is then in the last bits.
private let rounder: Float = 12_582_912  // 1.5 * 2^23

/// e^x for -87 <= x <= 87, to 2 units of the last place.
@inline(__always)
private func exponential(_ x: Vector) -> Vector {
  let magic = Vector(repeating: rounder)
  let shifted = multiplyAdd(magic, x, Vector(repeating: 1.442_695))
  let n = shifted - magic
  // log 2 in two parts: n times the first is exact.
  var r = multiplyAdd(x, n, Vector(repeating: -0.693_359_375))
  r = multiplyAdd(r, n, Vector(repeating: 2.121_944_4e-4))
  var p = Vector(repeating: 1.987_569_1e-4)
  p = multiplyAdd(Vector(repeating: 1.398_199_9e-3), p, r)
  p = multiplyAdd(Vector(repeating: 8.333_452e-3), p, r)
  p = multiplyAdd(Vector(repeating: 4.166_579_6e-2), p, r)
  p = multiplyAdd(Vector(repeating: 0.166_666_66), p, r)
  p = multiplyAdd(Vector(repeating: 0.5), p, r)
  p = multiplyAdd(r + Vector(repeating: 1), p * r, r)
  let exponent = unsafeBitCast(shifted, to: Words.self) &- Words(repeating: Int32(truncatingIfNeeded: rounder.bitPattern))
  let power = (exponent &+ Words(repeating: 127)) &<< Words(repeating: 23)
  return p * unsafeBitCast(power, to: Vector.self)
}

@inline(__always)
private func clamped(_ x: Vector, _ limit: Float) -> Vector {
  let high = Vector(repeating: limit)
  return x.replacing(with: high, where: x .> high).replacing(with: -high, where: x .< -high)
}

/// rgb[j] = 1 / (1 + exp(-sum over i of x[i] * matrix[i][j])) of `columns` pixels; planes are `xPlane` and `rgbPlane` apart.
func colours(_ x: ConstantFloats, _ xPlane: Int, _ matrix: ConstantFloats, _ columns: Int, _ rgb: Floats, _ rgbPlane: Int) {
  let one = Vector(repeating: 1)
  var c = 0
  while c < columns {
    let a = load(x, c), b = load(x, xPlane &+ c), d = load(x, 2 &* xPlane &+ c)
    for j in 0..<3 {
      let logit =
        a * Vector(repeating: matrix[j]) + b * Vector(repeating: matrix[3 &+ j])
        + d * Vector(repeating: matrix[6 &+ j])
      store(one / (one + exponential(clamped(-logit, 80))), rgb, j &* rgbPlane &+ c)
    }
    c &+= 16
  }
}

/// The adjoint of `colours` at an image: out[i] = sum over j of matrix[i][j] * gradient[j] * rgb[j] * (1 - rgb[j]).
func coloursAdjoint(
  _ rgb: ConstantFloats, _ gradient: ConstantFloats, _ rgbPlane: Int, _ matrix: ConstantFloats, _ columns: Int, _ out: Floats,
  _ outPlane: Int
) {
  let one = Vector(repeating: 1)
  var c = 0
  while c < columns {
    var s0 = Vector.zero, s1 = s0, s2 = s0
    for j in 0..<3 {
      let value = load(rgb, j &* rgbPlane &+ c)
      let slope = load(gradient, j &* rgbPlane &+ c) * value * (one - value)
      s0 = multiplyAdd(s0, slope, Vector(repeating: matrix[j]))
      s1 = multiplyAdd(s1, slope, Vector(repeating: matrix[3 &+ j]))
      s2 = multiplyAdd(s2, slope, Vector(repeating: matrix[6 &+ j]))
    }
    store(s0, out, c)
    store(s1, out, outPlane &+ c)
    store(s2, out, 2 &* outPlane &+ c)
    c &+= 16
  }
}

/// re + i im = magnitude * e^(i phase), for phases of up to a thousand turns. For others the result is not accurate, but not
/// larger than two magnitudes.
func spectrum(_ phase: ConstantFloats, _ magnitude: ConstantFloats, _ columns: Int, _ re: Floats, _ im: Floats) {
  let magic = Vector(repeating: rounder)
  var c = 0
  while c < columns {
    let x = load(phase, c)
    let shifted = multiplyAdd(magic, x, Vector(repeating: 0.636_619_8))  // quarter turns
    let n = shifted - magic
    // pi / 2 in three parts, of which the first two times n are exact.
    var r = multiplyAdd(x, n, Vector(repeating: -1.570_312_5))
    r = multiplyAdd(r, n, Vector(repeating: -4.837_512_97e-4))
    r = clamped(multiplyAdd(r, n, Vector(repeating: -7.549_789_95e-8)), 1)
    let square = r * r
    var s = multiplyAdd(Vector(repeating: 8.332_161e-3), square, Vector(repeating: -1.951_529_6e-4))
    s = multiplyAdd(Vector(repeating: -0.166_666_55), s, square)
    let sine = multiplyAdd(r, s * square, r)
    var k = multiplyAdd(Vector(repeating: -1.388_731_6e-3), square, Vector(repeating: 2.443_315_7e-5))
    k = multiplyAdd(Vector(repeating: 4.166_664_6e-2), k, square)
    k = multiplyAdd(Vector(repeating: -0.5), k, square)
    let cosine = multiplyAdd(Vector(repeating: 1), k, square)
    let quarter = unsafeBitCast(shifted, to: Words.self)
    let odd = (quarter & Words(repeating: 1)) .== Words(repeating: 1)
    let sineSign = (quarter & Words(repeating: 2)) &<< Words(repeating: 30)
    let cosineSign = ((quarter &+ Words(repeating: 1)) & Words(repeating: 2)) &<< Words(repeating: 30)
    let size = load(magnitude, c)
    let up = sine.replacing(with: cosine, where: odd), across = cosine.replacing(with: sine, where: odd)
    store(size * unsafeBitCast(unsafeBitCast(across, to: Words.self) ^ cosineSign, to: Vector.self), re, c)
    store(size * unsafeBitCast(unsafeBitCast(up, to: Words.self) ^ sineSign, to: Vector.self), im, c)
    c &+= 16
  }
}

/// out = weight * (re * gradientIm - im * gradientRe): the gradient of phases.
func phaseGradient(
  _ re: ConstantFloats, _ im: ConstantFloats, _ gradientRe: ConstantFloats, _ gradientIm: ConstantFloats, _ weight: Float,
  _ columns: Int, _ out: Floats
) {
  let factor = Vector(repeating: weight)
  var c = 0
  while c < columns {
    store(factor * (load(re, c) * load(gradientIm, c) - load(im, c) * load(gradientRe, c)), out, c)
    c &+= 16
  }
}

/// One step uphill of Adam or NAdam: parameter += (now * g + before * m) / (sqrt(v) * root + epsilon), with m and v updated.
func ascend(
  _ constants: UnsafeRawPointer, _ gradient: ConstantFloats, _ first: Floats, _ second: Floats, _ parameter: Floats,
  _ columns: Int
) {
  let k = constants.load(as: AscentConstants.self)
  let beta1 = Vector(repeating: k.beta1), rest1 = Vector(repeating: 1 - k.beta1)
  let beta2 = Vector(repeating: k.beta2), rest2 = Vector(repeating: 1 - k.beta2)
  let now = Vector(repeating: k.ofGradient), before = Vector(repeating: k.ofMoment)
  let root = Vector(repeating: k.inverseRootCorrection), epsilon = Vector(repeating: k.epsilon)
  var c = 0
  while c < columns {
    let g = load(gradient, c)
    let m = multiplyAdd(beta1 * load(first, c), rest1, g)
    let v = multiplyAdd(beta2 * load(second, c), rest2 * g, g)
    store(m, first, c)
    store(v, second, c)
    let change = multiplyAdd(now * g, before, m) / multiplyAdd(epsilon, v.squareRoot(), root)
    store(load(parameter, c) + change, parameter, c)
    c &+= 16
  }
}
