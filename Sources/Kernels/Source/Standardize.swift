import KernelTypes

// Activations as the user has them, to standardised float32. x - x is 0 for every finite x and NaN for all others.

func standardizeFloat32(
  _ source: UnsafeRawPointer, _ count: Int, _ mean: ConstantFloats, _ inverse: ConstantFloats, _ out: Floats
) -> Bool {
  var wrong = Vector.zero
  var c = 0
  while c &+ 16 <= count {
    let x = source.loadUnaligned(fromByteOffset: c &* 4, as: Vector.self)
    wrong += x - x
    store((x - load(mean, c)) * load(inverse, c), out, c)
    c &+= 16
  }
  var bad: Float = 0
  while c < count {
    let x = source.loadUnaligned(fromByteOffset: c &* 4, as: Float.self)
    bad += x - x
    out[c] = (x - mean[c]) * inverse[c]
    c &+= 1
  }
  return sumLanes(wrong) + bad == 0
}

func standardizeFloat16(
  _ source: UnsafeRawPointer, _ count: Int, _ mean: ConstantFloats, _ inverse: ConstantFloats, _ out: Floats
) -> Bool {
  var bad: Float = 0
  for c in 0..<count {
    let x = halfToFloat(source.loadUnaligned(fromByteOffset: c &* 2, as: UInt16.self))
    bad += x - x
    out[c] = (x - mean[c]) * inverse[c]
  }
  return bad == 0
}

/// IEEE half to single by bits: Float16 itself is missing on some platforms, and this vectorises.
///
/// Subnormal halves become normal singles through the multiplication by 2^112, which also rebiases the exponent.
@inline(__always)
func halfToFloat(_ half: UInt16) -> Float {
  let magnitude = UInt32(half & 0x7fff)
  let sign = UInt32(half & 0x8000) << 16
  let rebiased = Float(bitPattern: magnitude << 13) * Float(bitPattern: 0x7780_0000)
  let special = magnitude >= 0x7c00 ? 0x7f80_0000 | (magnitude & 0x3ff) << 13 : rebiased.bitPattern
  return Float(bitPattern: special | sign)
}

func standardizeFloat64(
  _ source: UnsafeRawPointer, _ count: Int, _ mean: ConstantFloats, _ inverse: ConstantFloats, _ out: Floats
) -> Bool {
  var bad: Float = 0
  for c in 0..<count {
    let x = Float(source.loadUnaligned(fromByteOffset: c &* 8, as: Double.self))
    bad += x - x
    out[c] = (x - mean[c]) * inverse[c]
  }
  return bad == 0
}

func standardizeBFloat16(
  _ source: UnsafeRawPointer, _ count: Int, _ mean: ConstantFloats, _ inverse: ConstantFloats, _ out: Floats
) -> Bool {
  var bad: Float = 0
  for c in 0..<count {
    let x = Float(bitPattern: UInt32(source.loadUnaligned(fromByteOffset: c &* 2, as: UInt16.self)) << 16)
    bad += x - x
    out[c] = (x - mean[c]) * inverse[c]
  }
  return bad == 0
}
