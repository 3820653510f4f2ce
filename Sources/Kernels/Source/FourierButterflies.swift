import KernelTypes

// Transforms of 2, 3, 4, 5, 7, 8 and 16 elements, `step` floats apart, each result times its twiddle.
//
// Those of odd length pair elements j and p - j: with a = x[j] + x[p - j] and b = x[j] - x[p - j], results r and p - r are
// u - i v and u + i v, u = x[0] + sum of cos(2 pi j r / p) a and v = sum of sin(2 pi j r / p) b.

@inline(__always)
func butterfly2(_ x: ComplexSource, _ step: Int, _ at: Int, _ y: ComplexTarget, _ to: Int, _ w: ConstantFloats?) {
  let a = x[at], b = x[at &+ step]
  y.put(a + b, 0, to)
  y.put(a - b, 1, to, w)
}

@inline(__always)
func butterfly3(_ x: ComplexSource, _ step: Int, _ at: Int, _ y: ComplexTarget, _ to: Int, _ w: ConstantFloats?) {
  let x0 = x[at], x1 = x[at &+ step], x2 = x[at &+ 2 &* step]
  let a = x1 + x2, v = (x1 - x2) * 0.866_025_404
  let u = x0.adding(-0.5, a)
  y.put(x0 + a, 0, to)
  y.put(.subtractI(u, v), 1, to, w)
  y.put(.addI(u, v), 2, to, w)
}

/// The transform of four elements.
struct Four {
  var y0, y1, y2, y3: ComplexLanes

  @inline(__always)
  init(_ x0: ComplexLanes, _ x1: ComplexLanes, _ x2: ComplexLanes, _ x3: ComplexLanes) {
    let evenSum = x0 + x2, evenDifference = x0 - x2
    let oddSum = x1 + x3, oddDifference = x1 - x3
    y0 = evenSum + oddSum
    y1 = .subtractI(evenDifference, oddDifference)
    y2 = evenSum - oddSum
    y3 = .addI(evenDifference, oddDifference)
  }
}

@inline(__always)
func butterfly4(_ x: ComplexSource, _ step: Int, _ at: Int, _ y: ComplexTarget, _ to: Int, _ w: ConstantFloats?) {
  let four = Four(x[at], x[at &+ step], x[at &+ 2 &* step], x[at &+ 3 &* step])
  y.put(four.y0, 0, to)
  y.put(four.y1, 1, to, w)
  y.put(four.y2, 2, to, w)
  y.put(four.y3, 3, to, w)
}

@inline(__always)
func butterfly5(_ x: ComplexSource, _ step: Int, _ at: Int, _ y: ComplexTarget, _ to: Int, _ w: ConstantFloats?) {
  let cos1: Float = 0.309_016_994, cos2: Float = -0.809_016_994
  let sin1: Float = 0.951_056_516, sin2: Float = 0.587_785_252
  let x0 = x[at], x1 = x[at &+ step], x2 = x[at &+ 2 &* step], x3 = x[at &+ 3 &* step], x4 = x[at &+ 4 &* step]
  let a1 = x1 + x4, a2 = x2 + x3
  let b1 = x1 - x4, b2 = x2 - x3
  let u1 = x0.adding(cos1, a1).adding(cos2, a2), v1 = (b1 * sin1).adding(sin2, b2)
  let u2 = x0.adding(cos2, a1).adding(cos1, a2), v2 = (b1 * sin2).adding(-sin1, b2)
  y.put(x0 + a1 + a2, 0, to)
  y.put(.subtractI(u1, v1), 1, to, w)
  y.put(.subtractI(u2, v2), 2, to, w)
  y.put(.addI(u2, v2), 3, to, w)
  y.put(.addI(u1, v1), 4, to, w)
}

@inline(__always)
func butterfly7(_ x: ComplexSource, _ step: Int, _ at: Int, _ y: ComplexTarget, _ to: Int, _ w: ConstantFloats?) {
  let cos1: Float = 0.623_489_802, cos2: Float = -0.222_520_934, cos3: Float = -0.900_968_868
  let sin1: Float = 0.781_831_482, sin2: Float = 0.974_927_912, sin3: Float = 0.433_883_739
  let x0 = x[at], x1 = x[at &+ step], x2 = x[at &+ 2 &* step], x3 = x[at &+ 3 &* step]
  let x4 = x[at &+ 4 &* step], x5 = x[at &+ 5 &* step], x6 = x[at &+ 6 &* step]
  let a1 = x1 + x6, a2 = x2 + x5, a3 = x3 + x4
  let b1 = x1 - x6, b2 = x2 - x5, b3 = x3 - x4
  y.put(x0 + a1 + a2 + a3, 0, to)
  let u1 = x0.adding(cos1, a1).adding(cos2, a2).adding(cos3, a3), v1 = (b1 * sin1).adding(sin2, b2).adding(sin3, b3)
  y.put(.subtractI(u1, v1), 1, to, w)
  y.put(.addI(u1, v1), 6, to, w)
  let u2 = x0.adding(cos2, a1).adding(cos3, a2).adding(cos1, a3), v2 = (b1 * sin2).adding(-sin3, b2).adding(-sin1, b3)
  y.put(.subtractI(u2, v2), 2, to, w)
  y.put(.addI(u2, v2), 5, to, w)
  let u3 = x0.adding(cos3, a1).adding(cos1, a2).adding(cos2, a3), v3 = (b1 * sin3).adding(-sin1, b2).adding(sin2, b3)
  y.put(.subtractI(u3, v3), 3, to, w)
  y.put(.addI(u3, v3), 4, to, w)
}

@inline(__always)
func butterfly8(_ x: ComplexSource, _ step: Int, _ at: Int, _ y: ComplexTarget, _ to: Int, _ w: ConstantFloats?) {
  let rootHalf: Float = 0.707_106_781
  let even = Four(x[at], x[at &+ 2 &* step], x[at &+ 4 &* step], x[at &+ 6 &* step])
  let odd = Four(x[at &+ step], x[at &+ 3 &* step], x[at &+ 5 &* step], x[at &+ 7 &* step])
  y.put(even.y0 + odd.y0, 0, to)
  y.put(even.y0 - odd.y0, 4, to, w)
  let odd1 = ComplexLanes.subtractI(odd.y1, odd.y1)  // times exp(-pi i / 4), and sqrt(2)
  y.put(even.y1.adding(rootHalf, odd1), 1, to, w)
  y.put(even.y1.adding(-rootHalf, odd1), 5, to, w)
  y.put(.subtractI(even.y2, odd.y2), 2, to, w)
  y.put(.addI(even.y2, odd.y2), 6, to, w)
  let odd3 = ComplexLanes.subtractI(odd.y3, odd.y3) * rootHalf  // times exp(-pi i / 4), and -i
  y.put(.subtractI(even.y3, odd3), 3, to, w)
  y.put(.addI(even.y3, odd3), 7, to, w)
}

/// Four transforms of four elements, and four across them.
@inline(__always)
func butterfly16(_ x: ComplexSource, _ step: Int, _ at: Int, _ y: ComplexTarget, _ to: Int, _ w: ConstantFloats?) {
  let cos1: Float = 0.923_879_533, sin1: Float = 0.382_683_432, rootHalf: Float = 0.707_106_781  // of pi / 8 and pi / 4
  let four0 = Four(x[at], x[at &+ 4 &* step], x[at &+ 8 &* step], x[at &+ 12 &* step])
  let four1 = Four(x[at &+ step], x[at &+ 5 &* step], x[at &+ 9 &* step], x[at &+ 13 &* step])
  let four2 = Four(x[at &+ 2 &* step], x[at &+ 6 &* step], x[at &+ 10 &* step], x[at &+ 14 &* step])
  let four3 = Four(x[at &+ 3 &* step], x[at &+ 7 &* step], x[at &+ 11 &* step], x[at &+ 15 &* step])
  putFour(Four(four0.y0, four1.y0, four2.y0, four3.y0), 0, y, to, w)
  putFour(
    Four(
      four0.y1, four1.y1.times(cos1, -sin1), ComplexLanes.subtractI(four2.y1, four2.y1) * rootHalf,
      four3.y1.times(sin1, -cos1)), 1, y, to, w)
  let turned = ComplexLanes.subtractI(four3.y2, four3.y2) * rootHalf  // once more by -i
  putFour(
    Four(
      four0.y2, ComplexLanes.subtractI(four1.y2, four1.y2) * rootHalf, four2.y2.timesMinusI, turned.timesMinusI), 2, y, to, w)
  putFour(
    Four(
      four0.y3, four1.y3.times(sin1, -cos1), ComplexLanes.addI(four2.y3, four2.y3) * -rootHalf,
      four3.y3.times(-cos1, sin1)), 3, y, to, w)
}

/// Results r, r + 4, r + 8 and r + 12.
@inline(__always)
private func putFour(_ four: Four, _ r: Int, _ y: ComplexTarget, _ to: Int, _ w: ConstantFloats?) {
  if r == 0 { y.put(four.y0, 0, to) } else { y.put(four.y0, r, to, w) }
  y.put(four.y1, r &+ 4, to, w)
  y.put(four.y2, r &+ 8, to, w)
  y.put(four.y3, r &+ 12, to, w)
}
