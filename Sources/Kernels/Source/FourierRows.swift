import KernelTypes

// Real rows to lanes and back. Two real rows are one complex sequence z = x1 + i x2, and their spectra X come out of Z:
// X1[k] = (Z[k] + conj Z[n - k]) / 2 and X2[k] = (Z[k] - conj Z[n - k]) / 2i.
//
// The last block of 16 columns overlaps the one before it: what both write is the same.

/// Floats from one element of lanes to the next.
private let laneStride = 32

/// See `FourierKernels.LoadRows`.
func loadRows(_ rows: UnsafePointer<ConstantFloats>, _ columns: Int, _ lanes: Floats) {
  var c = 0
  while c &+ 16 <= columns {
    loadBlock(rows, c, lanes)
    c &+= 16
  }
  if c == columns { return }
  if columns > 16 {
    loadBlock(rows, columns &- 16, lanes)
  } else {
    for row in 0..<32 { for c in 0..<columns { lanes[c &* laneStride &+ row] = rows[row][c] } }
  }
}

@inline(__always)
private func loadBlock(_ rows: UnsafePointer<ConstantFloats>, _ column: Int, _ lanes: Floats) {
  let place = lanes + column &* laneStride
  transposeBlock(rows, column, place, laneStride)
  transposeBlock(rows + 16, column, place + 16, laneStride)
}

/// See `FourierKernels.StoreRows`.
func storeRows(_ lanes: Floats, _ scale: Float, _ columns: Int, _ rows: UnsafePointer<Floats>) {
  let factor = Vector(repeating: scale)
  for c in 0..<2 &* columns { store(load(lanes, c &* 16) * factor, lanes, c &* 16) }
  var c = 0
  while c &+ 16 <= columns {
    storeBlock(lanes, c, rows)
    c &+= 16
  }
  if c == columns { return }
  if columns > 16 {
    storeBlock(lanes, columns &- 16, rows)
  } else {
    for row in 0..<32 { for c in 0..<columns { rows[row][c] = lanes[c &* laneStride &+ row] } }
  }
}

@inline(__always)
private func storeBlock(_ lanes: Floats, _ column: Int, _ rows: UnsafePointer<Floats>) {
  let place = lanes + column &* laneStride
  transposeBlock(place, laneStride, rows, column)
  transposeBlock(place + 16, laneStride, rows + 16, column)
}

/// Real and imaginary parts of the spectra of two rows, sixteen bins by sixteen lanes each, in `scratch`.
private struct SplitBlock {
  var re1, im1, re2, im2: Floats

  @inline(__always)
  init(_ scratch: Floats) {
    re1 = scratch
    im1 = scratch + 256
    re2 = scratch + 512
    im2 = scratch + 768
  }
}

/// See `FourierKernels.SplitPairs`.
func splitPairs(
  _ lanes: ConstantFloats, _ columns: Int, _ first: Int, _ bins: Int, _ rows: UnsafePointer<Floats>, _ offset: Int,
  _ scratch: Floats
) {
  let block = SplitBlock(scratch)
  let half = Vector(repeating: 0.5)
  for b in 0..<bins {
    let k = first &+ b
    let z = lanes + k &* laneStride, mirror = lanes + (k == 0 ? 0 : columns &- k) &* laneStride
    let re = load(z, 0) * half, im = load(z, 16) * half
    let mirrorRe = load(mirror, 0) * half, mirrorIm = load(mirror, 16) * half
    store(re + mirrorRe, block.re1, b &* 16)
    store(im - mirrorIm, block.im1, b &* 16)
    store(im + mirrorIm, block.re2, b &* 16)
    store(mirrorRe - re, block.im2, b &* 16)
  }
  transposeBlock(block.re1, 16, rows, offset)
  transposeBlock(block.im1, 16, rows, offset &+ 16)
  transposeBlock(block.re2, 16, rows + 16, offset)
  transposeBlock(block.im2, 16, rows + 16, offset &+ 16)
}

/// See `FourierKernels.JoinPairs`.
func joinPairs(
  _ rows: UnsafePointer<ConstantFloats>, _ offset: Int, _ columns: Int, _ first: Int, _ bins: Int, _ lanes: Floats,
  _ scratch: Floats
) {
  let block = SplitBlock(scratch)
  transposeBlock(rows, offset, block.re1, 16)
  transposeBlock(rows, offset &+ 16, block.im1, 16)
  transposeBlock(rows + 16, offset, block.re2, 16)
  transposeBlock(rows + 16, offset &+ 16, block.im2, 16)
  for b in 0..<bins {
    let k = first &+ b
    let z = lanes + k &* laneStride
    let re1 = load(block.re1, b &* 16), im1 = load(block.im1, b &* 16)
    let re2 = load(block.re2, b &* 16), im2 = load(block.im2, b &* 16)
    if k == 0 || 2 &* k == columns {  // a bin of a real row that is its own mirror image is real
      store(re1, z, 0)
      store(re2, z, 16)
    } else {
      let mirror = lanes + (columns &- k) &* laneStride
      store(re1 - im2, z, 0)
      store(im1 + re2, z, 16)
      store(re1 + im2, mirror, 0)
      store(re2 - im1, mirror, 16)
    }
  }
}
