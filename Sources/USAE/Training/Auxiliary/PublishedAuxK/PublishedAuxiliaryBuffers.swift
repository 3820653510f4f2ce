import KernelTypes

extension PublishedAuxiliary {
  /// Memory of a tile, and the packed dictionaries.
  final class Buffers: @unchecked Sendable {
    /// Auxiliary codes of a tile.
    let codes: TileCodes
    /// Dictionaries with scaled rows.
    let dictionaries: [ColumnPanels]
    /// The encoded model's tokens of a tile, by width.
    private var tokens: [Int: ColumnPanels] = [:]
    /// q D_j, then r_j - q D_j, then dLoss/d(q D_j), for one tile.
    let slopes: [PaddedMatrix]
    /// The slopes as products read them.
    let slopePanels: [ColumnPanels]
    /// Signs of the slopes by model, 60 dimensions to a word [ceil(width / 60), tileRows] and 60 tokens to a word
    /// [tileRows / 60, stride].
    let signsByToken, signsByDimension: [AlignedBuffer<UInt64>]
    /// Sums over tokens of code gradients by seat, [n_concepts].
    let sums: [AlignedBuffer<Double>]
    let dense: [DenseTile.Scratch]
    let scratch: [PublishedAuxiliaryGradients.Scratch]

    init(encoders: Int, columns: Int, models: [ModelParameters], threads: Int) throws(USAEError) {
      let rows = PublishedAuxiliary.tileRows
      codes = try TileCodes(rows: rows, columns: columns)
      sums = try (0..<encoders).map { _ throws(USAEError) in try AlignedBuffer<Double>(columns) }
      var dictionaries: [ColumnPanels] = []
      var slopePanels = dictionaries
      var slopes: [PaddedMatrix] = []
      var byToken: [AlignedBuffer<UInt64>] = []
      var byDimension = byToken
      for model in models {
        dictionaries.append(try ColumnPanels(rows: model.concepts, columns: model.width))
        slopePanels.append(try ColumnPanels(rows: rows, columns: model.width))
        slopes.append(try PaddedMatrix(rows: rows, columns: model.width))
        byToken.append(try AlignedBuffer<UInt64>((model.width + signsPerWord - 1) / signsPerWord * rows))
        byDimension.append(try AlignedBuffer<UInt64>(rows / signsPerWord * paddedWidth(model.width)))
      }
      self.dictionaries = dictionaries
      self.slopePanels = slopePanels
      self.slopes = slopes
      signsByToken = byToken
      signsByDimension = byDimension
      let widest = slopes.map(\.stride).max() ?? 1
      dense = try (0..<threads).map { _ throws(USAEError) in try DenseTile.Scratch(columns: columns, depth: widest) }
      scratch = try (0..<threads).map { _ throws(USAEError) in
        try PublishedAuxiliaryGradients.Scratch(columns: columns, widest: widest)
      }
    }

    func tokens(width: Int) throws(USAEError) -> ColumnPanels {
      if let tokens = tokens[width] { return tokens }
      let made = try ColumnPanels(rows: PublishedAuxiliary.tileRows, columns: width)
      tokens[width] = made
      return made
    }

    /// Stores the signs of a block of tokens' slopes; true if one of the slopes is 0.
    func noteSigns(_ tokens: Range<Int>, model: Int, width: Int) -> Bool {
      let slopes = slopes[model]
      let words = signsByDimension[model].base + tokens.lowerBound / signsPerWord * slopes.stride
      words.update(repeating: 0, count: slopes.stride)
      var anyZero = false
      for token in tokens {
        let row = slopes.row(token)
        if kernels.signs.words(row, width, signsByToken[model].base + token, PublishedAuxiliary.tileRows) { anyZero = true }
        kernels.signs.addSigns(row, width, token - tokens.lowerBound, words)
      }
      return anyZero
    }
  }
}

/// Auxiliary codes of a tile, in pieces of 32 concepts that hold all tokens of the tile: [pieces][rows][32].
final class TileCodes: @unchecked Sendable {
  /// Floats from one piece of a token to the next.
  let pieceStride: Int
  private let storage: FloatBuffer

  init(rows: Int, columns: Int) throws(USAEError) {
    pieceStride = rows * SkippingKernels.depth
    storage = try FloatBuffer((columns + SkippingKernels.depth - 1) / SkippingKernels.depth * pieceStride)
  }

  /// A token's codes from a concept on, to the end of its piece.
  func row(_ token: Int, concept: Int) -> UnsafeMutablePointer<Float> {
    let piece = concept / SkippingKernels.depth
    let place = concept % SkippingKernels.depth
    return storage.base + (piece &* pieceStride &+ token &* SkippingKernels.depth &+ place)
  }

  subscript(token: Int, concept: Int32) -> Float {
    get { row(token, concept: Int(concept)).pointee }
    set { row(token, concept: Int(concept)).pointee = newValue }
  }
}
