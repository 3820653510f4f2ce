import KernelTypes

/// A transform of any odd prime length: (radix - 1)² multiply-adds of complex by real numbers.
///
/// The sums of `FourierButterflies.swift`, with their elements in `scratch`: (a, b) of pair j in four registers.
@inline(__always)
func butterflyOfPrime(
  _ pass: FourierPass, _ x: ComplexSource, _ step: Int, _ at: Int, _ y: ComplexTarget, _ to: Int, _ w: ConstantFloats?,
  _ scratch: Floats
) {
  let half = pass.radix / 2
  let x0 = x[at]
  var sum = x0
  for j in 1...half {
    let first = x[at &+ j &* step], last = x[at &+ (pass.radix &- j) &* step]
    let pair = PairsOfPrime.place(j, scratch)
    pair.put(first + last, 0, 0)
    pair.put(first - last, 1, 0)
    sum = sum + (first + last)
  }
  y.put(sum, 0, to)
  var r = 1
  while r <= half {
    let next = r < half ? r &+ 1 : r  // the last of an odd number is computed twice
    let results = PairsOfPrime(pass, x0, r, next, scratch)
    y.put(.subtractI(results.u1, results.v1), r, to, w)
    y.put(.addI(results.u1, results.v1), pass.radix &- r, to, w)
    y.put(.subtractI(results.u2, results.v2), next, to, w)
    y.put(.addI(results.u2, results.v2), pass.radix &- next, to, w)
    r &+= 2
  }
}

/// The sums u and v for two results at a time: eight sums hide the latency of multiply-adds, and share the loads.
struct PairsOfPrime {
  var u1, u2, v1, v2: ComplexLanes

  /// Where a and b of pair j are.
  @inline(__always)
  static func place(_ j: Int, _ scratch: Floats) -> ComplexTarget {
    let base = scratch + (j &- 1) &* (4 &* lanesAtOnce)
    return ComplexTarget(re: base, im: base + lanesAtOnce, step: 2 &* lanesAtOnce)
  }

  @inline(__always)
  init(_ pass: FourierPass, _ x0: ComplexLanes, _ first: Int, _ second: Int, _ scratch: Floats) {
    u1 = x0
    u2 = x0
    v1 = .zero
    v2 = .zero
    let half = pass.radix / 2
    var root1 = 0, root2 = 0, done = 0
    var pair = ComplexSource(re: scratch, im: scratch + lanesAtOnce)
    while done < half {  // sums of sums, since one long sum would round in each of its steps
      let end = done &+ 64 < half ? done &+ 64 : half
      var a1 = ComplexLanes.zero, a2 = ComplexLanes.zero, b1 = ComplexLanes.zero, b2 = ComplexLanes.zero
      while done < end {
        root1 &+= first
        if root1 >= pass.radix { root1 &-= pass.radix }
        root2 &+= second
        if root2 >= pass.radix { root2 &-= pass.radix }
        let a = pair[0], b = pair[2 &* lanesAtOnce]
        a1 = a1.adding(pass.roots[2 &* root1], a)
        b1 = b1.adding(pass.roots[2 &* root1 &+ 1], b)
        a2 = a2.adding(pass.roots[2 &* root2], a)
        b2 = b2.adding(pass.roots[2 &* root2 &+ 1], b)
        pair = ComplexSource(re: pair.re + 4 &* lanesAtOnce, im: pair.im + 4 &* lanesAtOnce)
        done &+= 1
      }
      u1 = u1 + a1
      v1 = v1 + b1
      u2 = u2 + a2
      v2 = v2 + b2
    }
  }
}
