import KernelTypes

/// Half-spectra between the transforms of rows and of columns, in a layout that suits both: columns in blocks of sixteen, each
/// block the lanes of a batch, [blocks, height + 1, 2, 16].
///
/// The whole blocks of each plane come first, then the remaining bins of all planes together. The row past the height stands
/// for missing rows.
struct SpectrumBlocks {
  let planes, height, bins: Int
  let base: Floats

  /// Whole blocks of a plane, and its remaining bins.
  var wholeBlocks: Int { bins / FourierPlan.lanes }
  var restBins: Int { bins % FourierPlan.lanes }
  var rests: Int { (planes * restBins + FourierPlan.lanes - 1) / FourierPlan.lanes }
  var count: Int { planes * wholeBlocks + rests }
  var blockSize: Int { (height + 1) * FourierPlan.laneStride }

  func block(_ index: Int) -> Floats { base + index * blockSize }

  /// Zeroes the blocks of remaining bins, since lanes without a bin are transformed with the others.
  func clearRests() { block(planes * wholeBlocks).update(repeating: 0, count: rests * blockSize) }

  /// Row `row` of a plane's first block; those of its other whole blocks follow at `blockSize`.
  func row(_ row: Int, ofPlane plane: Int) -> Floats { block(plane * wholeBlocks) + row * FourierPlan.laneStride }

  /// Where the real part of a remaining bin of that row is; the imaginary part is 16 floats behind.
  func rest(_ bin: Int, ofRow row: Int, ofPlane plane: Int) -> Floats {
    let position = plane * restBins + bin
    return block(planes * wholeBlocks + position / FourierPlan.lanes) + row * FourierPlan.laneStride
      + position % FourierPlan.lanes
  }

  /// The bins in block number `rest` of the remaining ones: (lane, plane, column).
  func binsOfRest(_ rest: Int) -> [(lane: Int, plane: Int, bin: Int)] {
    let first = rest * FourierPlan.lanes
    return (first..<min(first + FourierPlan.lanes, planes * restBins)).map {
      ($0 - first, $0 / restBins, wholeBlocks * FourierPlan.lanes + $0 % restBins)
    }
  }
}
