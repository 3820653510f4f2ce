import KernelTypes

/// Products of whole matrices, A B, by the kernel that encodes: every element is an exact dot product over the depth, so its
/// bits depend on nothing else.
///
/// These products are a good part of a step, and OpenBLAS is slow where it does not know the processor: Debian 12's computes
/// with SSE on Intel's Emerald Rapids, and a published step without AuxK took twice as long with it.
final class TiledProduct: @unchecked Sendable {
  /// The most rows of A in one call of `rows`.
  static var blockRows: Int { kernels.product.tokensPerBlock }
  private let columns, mostDepth: Int
  /// The depth of the B that was taken.
  private var depth = 0
  private let panels, zeros: FloatBuffer
  // For each thread.
  private var lefts: [FloatBuffer] = []
  private var tiles: [FloatBuffer] = []

  init(columns: Int, depth: Int, threads: Int) throws(USAEError) {
    self.columns = columns
    mostDepth = depth
    let width = kernels.product.panelWidth
    panels = try FloatBuffer((columns + width - 1) / width * width * depth)
    zeros = try FloatBuffer(width)
    for _ in 0..<threads {
      lefts.append(try FloatBuffer(depth * Self.blockRows + 16))
      tiles.append(try FloatBuffer(Self.blockRows * width))
    }
  }

  /// Takes B [depth, columns].
  func take(_ b: UnsafePointer<Float>, stride: Int, depth: Int, work: InterruptibleWork) {
    precondition(depth <= mostDepth)
    self.depth = depth
    let width = kernels.product.panelWidth
    work.runToEnd((columns + width - 1) / width) { panel, _ in
      let first = panel * width
      let used = min(width, self.columns - first)
      let out = self.panels.base + first * depth
      for p in 0..<depth {
        (out + p &* width).update(from: b + (p &* stride &+ first), count: used)
        for c in used..<width { out[p &* width &+ c] = 0 }
      }
    }
  }

  /// Takes B, the rows of a matrix being its columns.
  func take(rowsOf matrix: PaddedMatrix, work: InterruptibleWork) {
    precondition(matrix.columns <= mostDepth && matrix.rows == columns)
    depth = matrix.columns
    let width = kernels.product.panelWidth
    work.runToEnd((columns + width - 1) / width) { panel, _ in
      let first = panel * width
      kernels.product.packPanel(
        matrix.row(first), matrix.stride, min(width, self.columns - first), self.depth, nil,
        self.panels.base + first * self.depth)
    }
  }

  /// Calls `use(row, column, values, count)` with every panel's part of up to `blockRows` rows of A B, from the panel of column
  /// `first` on.
  ///
  /// - Parameter pack: writes these rows of A as `ProductKernels.PackTokens` does, [depth, blockRows]; `out` has capacity for a
  ///   vector more.
  @inline(__always)
  func rows(
    _ count: Int, from first: Int, worker: Int, pack: (_ out: UnsafeMutablePointer<Float>) -> Void,
    use: (_ row: Int, _ column: Int, _ values: UnsafePointer<Float>, _ count: Int) -> Void
  ) {
    let left = lefts[worker].base, tile = tiles[worker].base
    let width = kernels.product.panelWidth
    pack(left)
    for column in stride(from: first / width * width, to: columns, by: width) {
      kernels.product.block(depth, left, panels.base + column * depth, zeros.base, count, tile, width)
      for row in 0..<count { use(row, column, tile + row * width, min(width, columns - column)) }
    }
  }
}
