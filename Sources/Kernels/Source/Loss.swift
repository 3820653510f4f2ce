import KernelTypes

func loss(_ which: Int32, _ residual: ConstantFloats, _ columns: Int) -> Float {
  which == absoluteLoss ? sumOfAbsolutes(residual, columns) : dot(residual, residual, columns)
}

private func sumOfAbsolutes(_ residual: ConstantFloats, _ columns: Int) -> Float {
  var sum = Vector.zero
  var c = 0
  while c < columns {
    let r = load(residual, c)
    sum += r.replacing(with: -r, where: r .< 0)
    c &+= 16
  }
  return sumLanes(sum)
}

func slope(_ which: Int32, _ a: Float, _ residual: ConstantFloats, _ columns: Int, _ out: Floats) {
  let factor = Vector(repeating: which == absoluteLoss ? a : 2 * a)
  var c = 0
  while c < columns {
    let r = load(residual, c)
    if which == absoluteLoss {
      let positive = Vector.zero.replacing(with: factor, where: r .> 0)
      store(positive.replacing(with: -factor, where: r .< 0), out, c)
    } else {
      store(factor * r, out, c)
    }
    c &+= 16
  }
}
