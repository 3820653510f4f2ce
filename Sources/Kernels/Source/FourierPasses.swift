import KernelTypes

/// See `FourierKernels.Pass`.
func fourierPass(
  _ pass: UnsafeRawPointer, _ xRe: ConstantFloats, _ xIm: ConstantFloats, _ xStride: Int, _ yRe: Floats, _ yIm: Floats,
  _ yStride: Int, _ scratch: Floats
) {
  let pass = pass.assumingMemoryBound(to: FourierPass.self).pointee
  let x = ComplexSource(re: xRe, im: xIm)
  let y = ComplexTarget(re: yRe, im: yIm, step: pass.run &* yStride)
  switch pass.radix {  // with a literal radix, each call is compiled to loops of one butterfly
  case 1: runGroups(1, pass, x, xStride, y, yStride, scratch)
  case 2: runGroups(2, pass, x, xStride, y, yStride, scratch)
  case 3: runGroups(3, pass, x, xStride, y, yStride, scratch)
  case 4: runGroups(4, pass, x, xStride, y, yStride, scratch)
  case 5: runGroups(5, pass, x, xStride, y, yStride, scratch)
  case 7: runGroups(7, pass, x, xStride, y, yStride, scratch)
  case 8: runGroups(8, pass, x, xStride, y, yStride, scratch)
  case 16: runGroups(16, pass, x, xStride, y, yStride, scratch)
  default: runGroups(0, pass, x, xStride, y, yStride, scratch)
  }
}

/// All butterflies of a pass. The twiddles of group 0 are 1.
@inline(__always)
private func runGroups(
  _ radix: Int, _ pass: FourierPass, _ x: ComplexSource, _ xStride: Int, _ y: ComplexTarget, _ yStride: Int,
  _ scratch: Floats
) {
  runGroup(radix, pass, 0, x, xStride, y, yStride, nil, scratch)
  var group = 1
  while group < pass.groups {
    let twiddles = pass.twiddles + group &* 2 &* (pass.radix &- 1)
    runGroup(radix, pass, group, x, xStride, y, yStride, twiddles, scratch)
    group &+= 1
  }
}

@inline(__always)
private func runGroup(
  _ radix: Int, _ pass: FourierPass, _ group: Int, _ x: ComplexSource, _ xStride: Int, _ y: ComplexTarget,
  _ yStride: Int, _ w: ConstantFloats?, _ scratch: Floats
) {
  let step = pass.groups &* pass.run &* xStride
  for k in 0..<pass.run {
    var lane = 0
    while lane < 16 {
      let at = (group &* pass.run &+ k) &* xStride &+ lane
      let to = (group &* pass.radix &* pass.run &+ k) &* yStride &+ lane
      switch radix {
      case 1: y.put(x[at], 0, to)
      case 2: butterfly2(x, step, at, y, to, w)
      case 3: butterfly3(x, step, at, y, to, w)
      case 4: butterfly4(x, step, at, y, to, w)
      case 5: butterfly5(x, step, at, y, to, w)
      case 7: butterfly7(x, step, at, y, to, w)
      case 8: butterfly8(x, step, at, y, to, w)
      case 16: butterfly16(x, step, at, y, to, w)
      default: butterflyOfPrime(pass, x, step, at, y, to, w, scratch)
      }
      lane &+= lanesAtOnce
    }
  }
}
