import Testing

@testable import USAE

/// What each kind of error says: a name, what was expected, what came, and what to do where that does not follow.
///
/// Texts of the Python package and its extension are read by python/tests/project/test_error_texts.py.
@Suite struct USAEErrorTests {
  static let errors: [USAEError] = [
    .invalidArgument(name: "k", expected: "a whole number from 1 to 9", got: "0"),
    .shapeMismatch(name: "out", expected: "8 columns", got: "6", remedy: "make it wider"),
    .unknownModel(name: "wit", known: ["vit", "siglip"]),
    .notFinite(model: "vit", row: 7, column: 3),
    .tooLarge(model: "vit", row: 3, column: 5, value: 3e38),
    .decodedTooLarge(model: "vit", row: 9),
    .lossNotFinite(step: 4),
    .sumNotFinite(exchange: "USAE_EXCHANGE_MEANS", position: 11),
    .notInitialized(operation: "encode"),
    .forkedWhileTraining,
    .outOfMemory(bytes: 1 << 40),
  ]

  @Test(arguments: errors)
  func aTextHasANameWhatWasExpectedAndWhatCame(error: USAEError) {
    #expect(error.description.wholeMatch(of: #/.+: expected .+, got .+/#) != nil)
  }

  @Test(arguments: errors)
  func whatCannotBeMendedByWhatWasExpectedHasARemedy(error: USAEError) {
    switch error {
    case .invalidArgument, .unknownModel: break  // what was expected says what to give
    case .shapeMismatch, .notFinite, .tooLarge, .decodedTooLarge, .lossNotFinite, .sumNotFinite, .notInitialized,
      .forkedWhileTraining, .outOfMemory:
      #expect(error.description.contains("; "))
    case .interrupted: Issue.record("an interrupt is no mistake of a caller")
    }
  }

  @Test func whatCameIsInTheText() {
    #expect(Self.errors[0].description == "k: expected a whole number from 1 to 9, got 0")
    #expect(Self.errors[1].description.hasSuffix("got 6; make it wider"))
    let words = ["wit", "row 7, column 3", "row 3, column 5", "row 9", "step 4", "USAE_EXCHANGE_MEANS", "encode"]
    for (error, word) in zip(Self.errors[2...], words) {
      #expect(error.description.contains(word))
    }
  }
}
