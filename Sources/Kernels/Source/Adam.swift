import KernelTypes

func adam(
  _ constants: UnsafeRawPointer, _ gradient: ConstantFloats, _ first: Floats, _ second: Floats,
  _ parameter: Floats, _ columns: Int
) {
  let k = constants.load(as: AdamConstants.self)
  let beta1 = Vector(repeating: k.beta1), rest1 = Vector(repeating: 1 - k.beta1)
  let beta2 = Vector(repeating: k.beta2), rest2 = Vector(repeating: 1 - k.beta2)
  let stepSize = Vector(repeating: k.stepSize), root = Vector(repeating: k.inverseRootCorrection)
  let epsilon = Vector(repeating: k.epsilon), keep = Vector(repeating: k.keep)
  let clip = Vector(repeating: k.gradientScale)
  var c = 0
  while c < columns {
    let g = load(gradient, c) * clip
    let m = multiplyAdd(beta1 * load(first, c), rest1, g)
    let v = multiplyAdd(beta2 * load(second, c), rest2 * g, g)
    store(m, first, c)
    store(v, second, c)
    let change = m / multiplyAdd(epsilon, v.squareRoot(), root)
    store(keep * load(parameter, c) - stepSize * change, parameter, c)
    c &+= 16
  }
}
