import KernelTypes

/// A matrix as products that skip zeros read it: panels of adjacent columns, [rows][columns of the panel] each.
final class ColumnPanels: @unchecked Sendable {
  let columns: Int
  private let rows: Int
  private let storage: FloatBuffer

  /// - Parameter columns: padded to whole vectors.
  init(rows: Int, columns: Int) throws(USAEError) {
    self.rows = rows
    self.columns = paddedWidth(columns)
    storage = try FloatBuffer(rows * self.columns)
  }

  var count: Int { (columns + kernels.skipping.width - 1) / kernels.skipping.width }

  /// Columns of a panel.
  func range(_ panel: Int) -> Range<Int> {
    let first = panel * kernels.skipping.width
    return first..<min(columns, first + kernels.skipping.width)
  }

  /// Packs the first `count` rows of a matrix, each times its scale if there is one.
  func pack(_ base: UnsafePointer<Float>, stride: Int, count: Int, scales: UnsafePointer<Float>? = nil, work: InterruptibleWork)
    throws(USAEError)
  {
    try work.run(self.count) { panel, _ in
      let columns = self.range(panel)
      kernels.skipping.packColumns(
        base + columns.lowerBound, stride, count, scales, columns.count, self.storage.base + columns.lowerBound * self.rows)
    }
  }

  /// out[r] += sum over i < 32 of values[r][i] * row (first + i), in the columns of one panel.
  func add(
    _ values: UnsafePointer<Float>, stride valueStride: Int, rows count: Int, first: Int, panel: Int,
    to out: UnsafeMutablePointer<Float>, stride: Int
  ) {
    let columns = range(panel)
    kernels.skipping.add(
      values, valueStride, count, storage.base + columns.lowerBound * rows + first * columns.count, columns.count,
      out + columns.lowerBound, stride)
  }
}
