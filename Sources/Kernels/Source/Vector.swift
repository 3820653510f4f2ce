import KernelTypes

// Kernel files use raw pointers, SIMD types and functions of this module only. Anything generic from the standard library
// (Array, Dictionary, closures over them) would be emitted once per instruction set under one weak symbol, and the linker
// could keep the AVX-512 copy for every processor; tools/check_instruction_sets.sh looks for that.

/// Sixteen floats: one AVX-512 register, two AVX2, four NEON or SSE registers.
typealias Vector = SIMD16<Float>
typealias Integers = SIMD16<Int32>

@inline(__always)
func load(_ pointer: ConstantFloats, _ offset: Int) -> Vector {
  UnsafeRawPointer(pointer + offset).loadUnaligned(as: Vector.self)
}

@inline(__always)
func load(_ pointer: UnsafePointer<Int32>, _ offset: Int) -> Integers {
  UnsafeRawPointer(pointer + offset).loadUnaligned(as: Integers.self)
}

@inline(__always)
func storeIntegers(_ vector: Integers, _ pointer: UnsafeMutablePointer<Int32>, _ offset: Int) {
  UnsafeMutableRawPointer(pointer + offset).storeBytes(of: vector, as: Integers.self)
}

@inline(__always)
func store(_ vector: Vector, _ pointer: Floats, _ offset: Int) {
  UnsafeMutableRawPointer(pointer + offset).storeBytes(of: vector, as: Vector.self)
}

/// sum + a * b, rounded once where the processor has a fused multiply-add.
@inline(__always)
func multiplyAdd(_ sum: Vector, _ a: Vector, _ b: Vector) -> Vector {
  #if USAE_FMA || arch(arm64)
    return sum.addingProduct(a, b)
  #else
    return sum + a * b  // x86-64 without FMA: addingProduct would call fmaf() for each lane
  #endif
}

/// The same of one lane.
@inline(__always)
func multiplyAddOne(_ sum: Float, _ a: Float, _ b: Float) -> Float {
  #if USAE_FMA || arch(arm64)
    return sum.addingProduct(a, b)
  #else
    return sum + a * b
  #endif
}

/// Sum of the lanes, pairwise, in one fixed order.
@inline(__always)
func sumLanes(_ v: Vector) -> Float {
  let eight = v.lowHalf + v.highHalf
  let four = eight.lowHalf + eight.highHalf
  let two = four.lowHalf + four.highHalf
  return two[0] + two[1]
}

@inline(__always)
func largestLane(_ v: Vector) -> Float {
  var largest = v[0]
  for i in 1..<16 where v[i] > largest { largest = v[i] }
  return largest
}
