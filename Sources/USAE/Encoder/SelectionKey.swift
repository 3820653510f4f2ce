// A selection key is a positive pre-activation and its concept in one integer, which orders as TopK must: by value, largest
// first, and ties by concept, lowest first. The kernels make the same keys (their `Selection.swift`).

@inline(__always) func selectionKey(_ value: Float, _ concept: Int32) -> UInt64 {
  UInt64(value.bitPattern) << 32 | UInt64(~UInt32(bitPattern: concept))
}

@inline(__always) func value(ofKey key: UInt64) -> Float { Float(bitPattern: UInt32(truncatingIfNeeded: key >> 32)) }

/// The key's concept, which is a column of a matrix of pre-activations.
@inline(__always) func column(ofKey key: UInt64) -> Int32 { Int32(bitPattern: ~UInt32(truncatingIfNeeded: key)) }
