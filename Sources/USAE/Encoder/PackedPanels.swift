/// An encoder, or some of its rows, as the product kernel reads it: panels [columns / panelWidth, depth, panelWidth] of scaled
/// weights, and a bias for each column.
final class PackedPanels: @unchecked Sendable {
  /// Concepts, rounded up to whole panels.
  let columns: Int
  let depth: Int
  let bias: FloatBuffer
  private let panels: FloatBuffer

  /// Packs the rows of `weight`, each times its scale.
  ///
  /// - Parameter previous: panels of the same shape that are no longer used; their memory is reused.
  init(
    _ weight: PaddedMatrix, columns: Int, scales: FloatBuffer, bias: FloatBuffer, reusing previous: PackedPanels? = nil,
    work: InterruptibleWork
  ) throws(USAEError) {
    self.columns = columns
    depth = weight.columns
    self.bias = bias
    if let previous { panels = previous.panels } else { panels = try FloatBuffer(columns * depth) }
    let (width, depth, panels) = (kernels.product.panelWidth, depth, panels)
    work.runToEnd(columns / width) { panel, _ in
      let first = panel * width
      kernels.product.packPanel(
        weight.row(min(first, weight.rows - 1)), weight.stride, max(0, min(width, weight.rows - first)), depth,
        scales.base + first, panels.base + first * depth)
    }
  }

  var base: UnsafePointer<Float> { UnsafePointer(panels.base) }

  /// All pre-activations of some tokens, `out` [count, columns].
  ///
  /// - Parameter packed: scratch memory for the tokens as the kernel reads them, [count rounded up to blocks of tokens, depth].
  func product(_ tokens: TokenRows, packed: FloatBuffer, out: UnsafeMutablePointer<Float>) {
    let block = kernels.product.tokensPerBlock
    for first in stride(from: 0, to: tokens.count, by: block) {
      kernels.product.packTokens(
        tokens.row(first), tokens.stride, min(block, tokens.count - first), depth, packed.base + first * depth)
    }
    for column in stride(from: 0, to: columns, by: kernels.product.panelWidth) {
      for first in stride(from: 0, to: tokens.count, by: block) {
        kernels.product.block(
          depth, packed.base + first * depth, base + column * depth, bias.base + column, min(block, tokens.count - first),
          out + first * columns + column, columns)
      }
    }
  }
}
