import USAEKernelTypes

/// What one thread needs to transform a batch of sixteen sequences.
final class FourierScratch: @unchecked Sendable {
  /// Lanes for the longer of both sides.
  let first, second: Floats
  /// For kernels, and for 32 rows of one block of bins.
  let spare, blockRows: Floats
  /// Where rows that are not there are written to.
  let unusedRow: Floats
  let sources: AlignedBuffer<ConstantFloats>
  let targets: AlignedBuffer<Floats>
  private let storage: FloatBuffer

  init(height: Int, width: Int) throws(USAEError) {
    let lanes = max(height, width) * FourierPlan.laneStride
    let spare = max(lanes, 64 * FourierPlan.lanes), rows = 32 * FourierPlan.laneStride
    storage = try FloatBuffer(2 * lanes + spare + rows + width)
    sources = try AlignedBuffer(32)
    targets = try AlignedBuffer(32)
    first = storage.base
    second = first + lanes
    self.spare = second + lanes
    blockRows = self.spare + spare
    unusedRow = blockRows + rows
  }
}

/// Half-spectra between the transforms of rows and of columns, in the layout that both like: columns in blocks of sixteen,
/// each block the lanes of a batch, [blocks, height + 1, 2, 16].
///
/// First the whole blocks of each plane, then what is left over of all planes together. The row past the height stands for
/// rows that are not there.
struct SpectrumBlocks {
  let planes, height, bins: Int
  let base: Floats

  /// Whole blocks of a plane, and bins left over.
  var wholeBlocks: Int { bins / FourierPlan.lanes }
  var restBins: Int { bins % FourierPlan.lanes }
  var rests: Int { (planes * restBins + FourierPlan.lanes - 1) / FourierPlan.lanes }
  var count: Int { planes * wholeBlocks + rests }
  var blockSize: Int { (height + 1) * FourierPlan.laneStride }

  func block(_ index: Int) -> Floats { base + index * blockSize }

  /// Row `row` of a plane's first block; those of its other whole blocks follow at `blockSize`.
  func row(_ row: Int, ofPlane plane: Int) -> Floats { block(plane * wholeBlocks) + row * FourierPlan.laneStride }

  /// Where the real part of a bin left over of that row is; the imaginary part is 16 floats behind.
  func rest(_ bin: Int, ofRow row: Int, ofPlane plane: Int) -> Floats {
    let position = plane * restBins + bin
    return block(planes * wholeBlocks + position / FourierPlan.lanes) + row * FourierPlan.laneStride
      + position % FourierPlan.lanes
  }

  /// The bins that block number `rest` of those left over has: (lane, plane, column).
  func binsOfRest(_ rest: Int) -> [(lane: Int, plane: Int, bin: Int)] {
    let first = rest * FourierPlan.lanes
    return (first..<min(first + FourierPlan.lanes, planes * restBins)).map {
      ($0 - first, $0 / restBins, wholeBlocks * FourierPlan.lanes + $0 % restBins)
    }
  }
}

/// Memory for transforms of up to `planes` planes by up to `threads` threads; one call's at a time.
final class FourierWorkspace: @unchecked Sendable {
  let planes: Int
  let spectra: FloatBuffer
  let scratch: [FourierScratch]
  /// Stands for rows that are not there.
  let zeroRow: FloatBuffer

  init(planes: Int, height: Int, width: Int, threads: Int) throws(USAEError) {
    self.planes = planes
    zeroRow = try FloatBuffer(width)
    var scratch: [FourierScratch] = []
    for _ in 0..<threads { scratch.append(try FourierScratch(height: height, width: width)) }
    self.scratch = scratch
    let blocks = SpectrumBlocks(planes: planes, height: height, bins: width / 2 + 1, base: zeroRow.base)
    spectra = try FloatBuffer(blocks.count * blocks.blockSize)
  }
}
