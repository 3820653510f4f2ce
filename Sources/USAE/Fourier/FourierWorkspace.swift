import KernelTypes

/// What one thread needs to transform a batch of sixteen sequences. Its pages are first touched by that thread.
final class FourierScratch: @unchecked Sendable {
  /// Lanes for the longer of both sides.
  let first, second: Floats
  /// For kernels, and for 32 rows of one block of bins.
  let kernelScratch, blockRows: Floats
  /// Where missing rows of an incomplete batch are written to.
  let unusedRow: Floats
  let sources: AlignedBuffer<ConstantFloats>
  let targets: AlignedBuffer<Floats>
  private let storage: FloatBuffer

  init(height: Int, width: Int) throws(USAEError) {
    let lanes = max(height, width) * FourierPlan.laneStride
    let kernelFloats = max(lanes, 64 * FourierPlan.lanes), rows = 32 * FourierPlan.laneStride
    storage = try FloatBuffer(2 * lanes + kernelFloats + rows + width, zeroed: false)
    sources = try AlignedBuffer(32)
    targets = try AlignedBuffer(32)
    first = storage.base
    second = first + lanes
    kernelScratch = second + lanes
    blockRows = kernelScratch + kernelFloats
    unusedRow = blockRows + rows
  }
}

/// Memory for transforms of up to `planes` planes by up to `threads` threads; one call's at a time.
final class FourierWorkspace: @unchecked Sendable {
  let planes: Int
  let spectra: FloatBuffer
  let scratch: [FourierScratch]
  /// Where missing rows of an incomplete batch are read from.
  let zeroRow: FloatBuffer

  init(planes: Int, height: Int, width: Int, threads: Int) throws(USAEError) {
    self.planes = planes
    zeroRow = try FloatBuffer(width)
    var scratch: [FourierScratch] = []
    for _ in 0..<threads { scratch.append(try FourierScratch(height: height, width: width)) }
    self.scratch = scratch
    let blocks = SpectrumBlocks(planes: planes, height: height, bins: width / 2 + 1, base: zeroRow.base)
    spectra = try FloatBuffer(blocks.count * blocks.blockSize, zeroed: false)
  }
}
