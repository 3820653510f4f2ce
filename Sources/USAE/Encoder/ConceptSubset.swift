/// A few concepts to select among, the dead ones, with their encoder rows.
///
/// So many of them are wanted that bounds would rule out little: a token's pre-activations for all of them, by the product,
/// take less time. They have the bits that any other way to compute them gives.
final class ConceptSubset: @unchecked Sendable {
  /// In ascending order.
  let concepts: [Int32]
  /// Length of a row of pre-activations.
  let columns: Int
  private var panels: PackedPanels?
  private var bias: FloatBuffer?

  init(_ concepts: [Int32]) {
    self.concepts = concepts
    columns = (concepts.count + kernels.product.panelWidth - 1) / kernels.product.panelWidth * kernels.product.panelWidth
  }

  /// Takes the rows of an encoder; to be called before tiles are prepared for the list.
  func pack(_ weight: PaddedMatrix, scales: FloatBuffer, bias: FloatBuffer, work: Work) throws(USAEError) {
    let rows = try PaddedMatrix(rows: concepts.count, columns: weight.columns)
    let ownScales = try FloatBuffer(columns)
    let ownBias = try FloatBuffer(columns)
    for (i, concept) in concepts.enumerated() {
      rows.row(i).update(from: weight.row(Int(concept)), count: weight.stride)
      ownScales.base[i] = scales.base[Int(concept)]
      ownBias.base[i] = bias.base[Int(concept)]
    }
    let packed = try PackedPanels(columns: columns, depth: weight.columns)
    packed.pack(rows, scales: ownScales, work: work)
    panels = packed
    self.bias = ownBias
  }

  /// Pre-activations of packed tokens, `out` [count, columns].
  func product(_ tokens: UnsafePointer<Float>, count: Int, out: UnsafeMutablePointer<Float>) {
    guard let panels, let bias else { preconditionFailure("a list of concepts is packed before it is used") }
    panels.product(tokens, count: count, bias: bias, out: out)
  }
}
