import Synchronization
import KernelTypes

/// Discrete Fourier transforms of real images of one size, and their inverse: numpy's `rfft2` and `irfft2` in float32.
///
/// A side of n takes time n log n, or n p with a prime factor p above 7. Results have the same bits for any number of threads,
/// and for a plane alone or among others. Any number of threads may call at once. The memory of the last call is kept.
///
/// Sixteen sequences are transformed side by side, whatever their length: the lanes of a vector belong to different rows or
/// columns.
package final class FourierTransform: Sendable {
  static let sides = 1...8192
  static let planeCounts = 1...1 << 20

  let height, width: Int
  /// Columns of the half spectrum.
  var bins: Int { width / 2 + 1 }

  private let rows, columns: FourierPlan
  private let kernels: FourierKernels
  /// Memory that no call is using, kept because images of one size come again and again: the address of a retained workspace,
  /// or 0. It is exchanged atomically, without a lock: a thread that holds a lock when the process is forked does not exist in
  /// the child to release it.
  private let idle = Atomic<UInt>(0)

  /// Planes are transformed together while their spectra have no more floats than this, but at least one at a time: that is
  /// enough work for the threads, and the spectra are still in the last cache when their columns are read.
  private static let floatsAtOnce = 1 << 20

  package convenience init(height: Int, width: Int) throws(USAEError) {
    try checkKernels()
    try self.init(height: height, width: width, kernels: USAE.kernels.fourier)
  }

  init(height: Int, width: Int, kernels: FourierKernels) throws(USAEError) {
    try UniversalSAE.require("height", height, in: Self.sides)
    try UniversalSAE.require("width", width, in: Self.sides)
    self.height = height
    self.width = width
    self.kernels = kernels
    rows = try FourierPlan(length: width)
    columns = width == height ? rows : try FourierPlan(length: height)
  }

  /// Real images [planes, height, width] to their half spectra [planes, height, width / 2 + 1], not normalised.
  ///
  /// After an interrupt the spectra are partly written.
  package func forward(
    _ image: UnsafePointer<Float>, planes: Int = 1, re: UnsafeMutablePointer<Float>, im: UnsafeMutablePointer<Float>,
    work: InterruptibleWork
  ) throws(USAEError) {
    try inGroups(of: planes, threads: work.threads) { first, spectra, workspace throws(USAEError) in
      spectra.clearRests()
      let image = image + first * height * width
      try work.run(rowBatches(spectra.planes)) { batch, worker in
        forwardRows(batch, image, spectra, workspace, workspace.scratch[worker])
      }
      let re = re + first * height * bins, im = im + first * height * bins
      try work.run(spectra.count) { block, worker in
        forwardColumns(block, spectra, ComplexView(re: re, im: im, stride: bins), workspace.scratch[worker])
      }
    }
  }

  /// Half spectra [planes, height, width / 2 + 1] to real images [planes, height, width], divided by height * width.
  ///
  /// After the transform of columns, imaginary parts in the first column, and in the last of an even width, are ignored. After
  /// an interrupt the images are partly written.
  package func inverse(
    re: UnsafePointer<Float>, im: UnsafePointer<Float>, planes: Int = 1, image: UnsafeMutablePointer<Float>,
    work: InterruptibleWork
  ) throws(USAEError) {
    try inGroups(of: planes, threads: work.threads) { first, spectra, workspace throws(USAEError) in
      let re = re + first * height * bins, im = im + first * height * bins
      try work.run(spectra.count) { block, worker in
        inverseColumns(block, ComplexView(re: re, im: im, stride: bins), spectra, workspace.scratch[worker])
      }
      let image = image + first * height * width
      try work.run(rowBatches(spectra.planes)) { batch, worker in
        inverseRows(batch, spectra, image, workspace, workspace.scratch[worker])
      }
    }
  }

  // MARK: Planes and memory

  /// Calls `body(first plane, spectra of the group, workspace)` for groups of planes.
  private func inGroups(
    of planes: Int, threads: Int, _ body: (Int, SpectrumBlocks, FourierWorkspace) throws(USAEError) -> Void
  ) throws(USAEError) {
    try UniversalSAE.require("planes", planes, in: Self.planeCounts)
    let groupSize = min(planes, max(1, Self.floatsAtOnce / (2 * height * bins)))
    let workspace = try takeWorkspace(planes: groupSize, threads: threads)
    defer { keep(workspace) }
    for first in stride(from: 0, to: planes, by: groupSize) {
      let group = SpectrumBlocks(
        planes: min(groupSize, planes - first), height: height, bins: bins, base: workspace.spectra.base)
      try body(first, group, workspace)
    }
  }

  private func takeWorkspace(planes: Int, threads: Int) throws(USAEError) -> FourierWorkspace {
    if let kept = takeIdle(), kept.planes >= planes, kept.scratch.count >= threads { return kept }
    return try FourierWorkspace(planes: planes, height: height, width: width, threads: threads)
  }

  private func takeIdle() -> FourierWorkspace? {
    UnsafeRawPointer(bitPattern: idle.exchange(0, ordering: .acquiringAndReleasing)).map {
      Unmanaged<FourierWorkspace>.fromOpaque($0).takeRetainedValue()
    }
  }

  private func keep(_ workspace: FourierWorkspace) {
    let address = UInt(bitPattern: Unmanaged.passRetained(workspace).toOpaque())
    let other = idle.exchange(address, ordering: .acquiringAndReleasing)
    if let other = UnsafeRawPointer(bitPattern: other) { Unmanaged<FourierWorkspace>.fromOpaque(other).release() }
  }

  deinit { _ = takeIdle() }

  // MARK: Rows

  /// Rows of a plane are transformed in pairs. The last row of an odd number is paired with zeros.
  private var pairs: Int { (height + 1) / 2 }

  private func rowBatches(_ planes: Int) -> Int { (planes * pairs + FourierPlan.lanes - 1) / FourierPlan.lanes }

  /// The plane and row of each of a batch's 32 rows, the first of each pair before the second ones; row `height` where there
  /// is none.
  private func forEachRow(ofBatch batch: Int, planes: Int, _ body: (_ index: Int, _ plane: Int, _ row: Int) -> Void) {
    for lane in 0..<FourierPlan.lanes {
      let pair = batch * FourierPlan.lanes + lane
      let plane = min(pair / pairs, planes - 1)
      let row = min(2 * (pair - plane * pairs), height)
      body(lane, plane, row)
      body(lane + FourierPlan.lanes, plane, min(row + 1, height))
    }
  }

  private func forwardRows(
    _ batch: Int, _ image: ConstantFloats, _ spectra: SpectrumBlocks, _ workspace: FourierWorkspace,
    _ scratch: FourierScratch
  ) {
    forEachRow(ofBatch: batch, planes: spectra.planes) { index, plane, row in
      let rowOfImage = image + (plane * height + row) * width
      scratch.sources.base[index] = row < height ? rowOfImage : ConstantFloats(workspace.zeroRow.base)
      scratch.targets.base[index] = spectra.row(row, ofPlane: plane)
    }
    kernels.loadRows(scratch.sources.base, width, scratch.first)
    let lanes = rows.transform(
      ComplexView(lanes: scratch.first).constant, inverse: false, scratch: scratch, kernels: kernels
    ).re
    for block in 0..<spectra.wholeBlocks {
      kernels.splitPairs(
        lanes, width, block * FourierPlan.lanes, FourierPlan.lanes, scratch.targets.base, block * spectra.blockSize,
        scratch.kernelScratch)
    }
    if spectra.restBins > 0 { splitRest(batch, lanes, spectra, scratch) }
  }

  /// The bins past the whole blocks.
  private func splitRest(_ batch: Int, _ lanes: ConstantFloats, _ spectra: SpectrumBlocks, _ scratch: FourierScratch) {
    for index in 0..<32 { scratch.targets.base[index] = scratch.blockRows + index * FourierPlan.laneStride }
    kernels.splitPairs(
      lanes, width, spectra.wholeBlocks * FourierPlan.lanes, spectra.restBins, scratch.targets.base, 0, scratch.kernelScratch)
    forEachRow(ofBatch: batch, planes: spectra.planes) { index, plane, row in
      if row == height { return }
      for bin in 0..<spectra.restBins {
        let place = spectra.rest(bin, ofRow: row, ofPlane: plane)
        place[0] = scratch.targets.base[index][bin]
        place[FourierPlan.lanes] = scratch.targets.base[index][bin + FourierPlan.lanes]
      }
    }
  }

  private func inverseRows(
    _ batch: Int, _ spectra: SpectrumBlocks, _ image: Floats, _ workspace: FourierWorkspace, _ scratch: FourierScratch
  ) {
    forEachRow(ofBatch: batch, planes: spectra.planes) { index, plane, row in
      scratch.sources.base[index] = ConstantFloats(spectra.row(row, ofPlane: plane))
      scratch.targets.base[index] = row < height ? image + (plane * height + row) * width : scratch.unusedRow
    }
    for block in 0..<spectra.wholeBlocks {
      kernels.joinPairs(
        scratch.sources.base, block * spectra.blockSize, width, block * FourierPlan.lanes, FourierPlan.lanes,
        scratch.first, scratch.kernelScratch)
    }
    if spectra.restBins > 0 { joinRest(batch, spectra, scratch) }
    let lanes = rows.transform(
      ComplexView(lanes: scratch.first).constant, inverse: true, scratch: scratch, kernels: kernels
    ).re
    kernels.storeRows(lanes, 1 / Float(height * width), width, scratch.targets.base)
  }

  /// The bins past the whole blocks.
  private func joinRest(_ batch: Int, _ spectra: SpectrumBlocks, _ scratch: FourierScratch) {
    forEachRow(ofBatch: batch, planes: spectra.planes) { index, plane, row in
      let copy = scratch.blockRows + index * FourierPlan.laneStride
      scratch.sources.base[index] = ConstantFloats(copy)
      for bin in 0..<spectra.restBins {
        let place = spectra.rest(bin, ofRow: row, ofPlane: plane)
        copy[bin] = place[0]
        copy[bin + FourierPlan.lanes] = place[FourierPlan.lanes]
      }
    }
    kernels.joinPairs(
      scratch.sources.base, 0, width, spectra.wholeBlocks * FourierPlan.lanes, spectra.restBins, scratch.first,
      scratch.kernelScratch)
  }

  // MARK: Columns

  /// Where sixteen columns of a whole block are in the caller's spectra.
  private func columnsOfBlock<Pointer: Strideable>(
    _ block: Int, _ spectra: SpectrumBlocks, _ all: ComplexView<Pointer>
  ) -> ComplexView<Pointer> where Pointer.Stride == Int {
    let (plane, block) = block.quotientAndRemainder(dividingBy: spectra.wholeBlocks)
    let offset = plane * height * bins + block * FourierPlan.lanes
    return ComplexView(re: all.re.advanced(by: offset), im: all.im.advanced(by: offset), stride: bins)
  }

  private func forwardColumns(
    _ block: Int, _ spectra: SpectrumBlocks, _ out: ComplexView<Floats>, _ scratch: FourierScratch
  ) {
    let source = ComplexView(lanes: spectra.block(block)).constant
    let rest = block - spectra.planes * spectra.wholeBlocks
    if rest < 0 {
      let target = columnsOfBlock(block, spectra, out)
      columns.transform(source, to: target, inverse: false, scratch: scratch, kernels: kernels)
      return
    }
    let result = columns.transform(source, inverse: false, scratch: scratch, kernels: kernels)
    for (lane, plane, bin) in spectra.binsOfRest(rest) {
      let place = plane * height * bins + bin
      for row in 0..<height {
        out.re[place + row * bins] = result.re[row * FourierPlan.laneStride + lane]
        out.im[place + row * bins] = result.im[row * FourierPlan.laneStride + lane]
      }
    }
  }

  private func inverseColumns(
    _ block: Int, _ all: ComplexView<ConstantFloats>, _ spectra: SpectrumBlocks, _ scratch: FourierScratch
  ) {
    let target = ComplexView(lanes: spectra.block(block))
    // The missing partner of a last row must be 0, since both share a transform.
    (spectra.block(block) + height * FourierPlan.laneStride).update(repeating: 0, count: FourierPlan.laneStride)
    let rest = block - spectra.planes * spectra.wholeBlocks
    if rest < 0 {
      let source = columnsOfBlock(block, spectra, all)
      columns.transform(source, to: target, inverse: true, scratch: scratch, kernels: kernels)
      return
    }
    let lanes = ComplexView(lanes: scratch.first)
    scratch.first.update(repeating: 0, count: height * FourierPlan.laneStride)
    for (lane, plane, bin) in spectra.binsOfRest(rest) {
      let place = plane * height * bins + bin
      for row in 0..<height {
        lanes.re[row * FourierPlan.laneStride + lane] = all.re[place + row * bins]
        lanes.im[row * FourierPlan.laneStride + lane] = all.im[place + row * bins]
      }
    }
    columns.transform(lanes.constant, to: target, inverse: true, scratch: scratch, kernels: kernels)
  }
}
