import KernelTypes

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

  /// Lanes that no bin has are transformed with the others: as zeros they are in nobody's way.
  func clearRests() { block(planes * wholeBlocks).update(repeating: 0, count: rests * blockSize) }

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
