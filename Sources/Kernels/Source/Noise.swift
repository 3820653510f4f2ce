import KernelTypes

// Noise for views. A number is the sum of eight uniform bytes: near enough to a normal one (excess kurtosis -0.15) and, made of
// integers alone, the same on every processor. The bytes are those of Philox4x32-10 (Salmon et al., 2011), sixteen counters
// side by side.

private typealias Words = SIMD16<UInt32>

/// Mean and one over the standard deviation of the sum of eight uniform bytes.
private let meanOfBytes: Float = 1020
private let inverseDeviation: Float = 0.00478426  // 1 / sqrt(8 (256^2 - 1) / 12)

/// out = (row + deviation * noise) * scale + shift. The noise of columns 32 b to 32 b + 31 is drawn at counters 16 b + lane.
func noisyRow(_ constants: UnsafeRawPointer, _ row: ConstantFloats, _ columns: Int, _ out: Floats) {
  let k = constants.load(as: NoisyRowConstants.self)
  let scale = Vector(repeating: k.scale), shift = Vector(repeating: k.shift)
  let unit = Vector(repeating: k.deviation * inverseDeviation)
  var c = 0
  while c < columns {
    let (left, right) = sumsOfBytes(UInt32(truncatingIfNeeded: c / 2), k)
    store((load(row, c) + unit * left) * scale + shift, out, c)
    if c &+ 16 < columns { store((load(row, c &+ 16) + unit * right) * scale + shift, out, c &+ 16) }
    c &+= 32
  }
}

/// Two centred sums of eight bytes for each of sixteen counters.
@inline(__always)
private func sumsOfBytes(_ first: UInt32, _ constants: NoisyRowConstants) -> (Vector, Vector) {
  let lanes = Words(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
  var a = lanes &+ Words(repeating: first)
  var b = Words(repeating: constants.counter.0), c = Words(repeating: constants.counter.1)
  var d = Words(repeating: constants.counter.2)
  var (k0, k1) = constants.key
  for _ in 0..<10 {
    let left = product(a, 0xD251_1F53), right = product(c, 0xCD9E_8D57)
    a = right.high ^ b ^ Words(repeating: k0)
    c = left.high ^ d ^ Words(repeating: k1)
    b = right.low
    d = left.low
    k0 &+= 0x9E37_79B9
    k1 &+= 0xBB67_AE85
  }
  return (centredSum(a, b), centredSum(c, d))
}

/// The 64 bits of a * b in halves: even and odd lanes apart, since processors multiply 32 bits to 64 in every other lane.
@inline(__always)
private func product(_ a: Words, _ b: UInt32) -> (high: Words, low: Words) {
  typealias Wide = SIMD8<UInt64>
  let pairs = unsafeBitCast(a, to: Wide.self)
  let factor = Wide(repeating: UInt64(b)), mask = Wide(repeating: 0xFFFF_FFFF)
  let even = (pairs & mask) &* factor
  let odd = (pairs &>> Wide(repeating: 32)) &* factor
  let high = (even &>> Wide(repeating: 32)) | (odd & ~mask)
  // The low halves do not come from even and odd, which the compiler would turn into a 64-bit product that is slower than this
  // 32-bit one.
  return (unsafeBitCast(high, to: Words.self), a &* Words(repeating: b))
}

@inline(__always)
private func centredSum(_ x: Words, _ y: Words) -> Vector {
  let mask = Words(repeating: 0x00FF_00FF), eight = Words(repeating: 8)
  let halves = (x & mask) &+ ((x &>> eight) & mask) &+ (y & mask) &+ ((y &>> eight) & mask)
  let sum = (halves &+ (halves &>> Words(repeating: 16))) & Words(repeating: 0xFFFF)
  // Bits of 2^23 + n are those of 2^23 and of n: an exact conversion that every processor does sixteen lanes at a time.
  let shifted = unsafeBitCast(sum | Words(repeating: 0x4B00_0000), to: Vector.self)
  return shifted - Vector(repeating: 8_388_608 + meanOfBytes)
}
