/// Weights as the product kernel reads them: panels [n_concepts / width][depth][width].
final class PackedPanels: @unchecked Sendable {
  /// Whether the panels are those of the encoder's present weights.
  var isCurrent = false
  private let columns, depth: Int
  private let panels: FloatBuffer

  var base: UnsafePointer<Float> { UnsafePointer(panels.base) }

  init(columns: Int, depth: Int) throws(USAEError) {
    self.columns = columns
    self.depth = depth
    panels = try FloatBuffer(columns * depth)
  }

  /// Packs `weight`, each row times its scale.
  func pack(_ weight: PaddedMatrix, scales: FloatBuffer, work: Work) {
    let width = kernels.product.panelWidth
    work.runToEnd(columns / width) { panel, _ in
      let first = panel * width
      kernels.product.packPanel(
        weight.row(min(first, weight.rows - 1)), weight.stride, max(0, min(width, weight.rows - first)), self.depth,
        scales.base + first, self.panels.base + first * self.depth)
    }
    isCurrent = true
  }

  /// Pre-activations of packed tokens, `out` [count, columns].
  func product(_ tokens: UnsafePointer<Float>, count: Int, bias: FloatBuffer, out: UnsafeMutablePointer<Float>) {
    let block = kernels.product.tokensPerBlock
    for first in stride(from: 0, to: columns, by: kernels.product.panelWidth) {
      for token in stride(from: 0, to: count, by: block) {
        kernels.product.block(
          depth, tokens + token * depth, panels.base + first * depth, bias.base + first, min(block, count - token),
          out + token * columns + first, columns)
      }
    }
  }
}
