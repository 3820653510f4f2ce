import KernelTypes

// Activations as the user has them, to standardised float32. y - y is 0 for every finite y and NaN for all others; y is not
// finite where x is not, and where a finite x overflows.

func standardizeFloat32(
  _ source: UnsafeRawPointer, _ count: Int, _ mean: ConstantFloats, _ inverse: ConstantFloats, _ out: Floats
) -> Bool {
  var wrong = Vector.zero
  var c = 0
  while c &+ 16 <= count {
    let x = source.loadUnaligned(fromByteOffset: c &* 4, as: Vector.self)
    let y = (x - load(mean, c)) * load(inverse, c)
    wrong += y - y
    store(y, out, c)
    c &+= 16
  }
  var bad: Float = 0
  while c < count {
    let x = source.loadUnaligned(fromByteOffset: c &* 4, as: Float.self)
    let y = (x - mean[c]) * inverse[c]
    bad += y - y
    out[c] = y
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
    let y = (x - mean[c]) * inverse[c]
    bad += y - y
    out[c] = y
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
    let y = (x - mean[c]) * inverse[c]
    bad += y - y
    out[c] = y
  }
  return bad == 0
}

func standardizeBFloat16(
  _ source: UnsafeRawPointer, _ count: Int, _ mean: ConstantFloats, _ inverse: ConstantFloats, _ out: Floats
) -> Bool {
  var bad: Float = 0
  for c in 0..<count {
    let x = Float(bitPattern: UInt32(source.loadUnaligned(fromByteOffset: c &* 2, as: UInt16.self)) << 16)
    let y = (x - mean[c]) * inverse[c]
    bad += y - y
    out[c] = y
  }
  return bad == 0
}
