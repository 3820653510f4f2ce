/// What a caller can get wrong, or the machine refuse. A broken invariant of the library traps instead.
///
/// Each case becomes a status of `usae.h`; `description` is the text that a Python user reads.
public enum USAEError: Error, Equatable, Sendable, CustomStringConvertible {
  case invalidArgument(name: String, expected: String, got: String, remedy: String = "")
  case shapeMismatch(name: String, expected: String, got: String, remedy: String = "")
  case unknownModel(name: String, known: [String])
  case notFinite(model: String, row: Int, column: Int)
  /// The row is finite, but what is computed from it would not be.
  case tooLarge(model: String, row: Int, column: Int, value: Float)
  /// The code of the row is finite, but the activations that it stands for are not.
  case decodedTooLarge(model: String, row: Int)
  case lossNotFinite(step: Int)
  case sumNotFinite(exchange: String, position: Int)
  case notInitialized(operation: String)
  case forkedWhileTraining
  case interrupted
  case outOfMemory(bytes: Int)

  public var description: String {
    switch self {
    case .invalidArgument(let name, let expected, let got, let remedy),
      .shapeMismatch(let name, let expected, let got, let remedy):
      return "\(name): expected \(expected), got \(got)" + (remedy.isEmpty ? "" : "; \(remedy)")
    case .unknownModel(let name, let known):
      return "model: expected one of \(known), got \(name)"
    case .notFinite(let model, let row, let column):
      return "activations of '\(model)': expected finite numbers, got NaN or infinity (as float32) in row \(row), column "
        + "\(column); remove or repair that row in every model"
    case .tooLarge(let model, let row, let column, let value):
      return "activations of '\(model)': expected numbers of about the size that the model was fitted to, got \(value) in row "
        + "\(row), column \(column), with which float32 overflows; remove or repair that row in every model, or scale the "
        + "activations as those of the fit were"
    case .decodedTooLarge(let model, let row):
      return "codes: expected values whose activations of '\(model)' float32 can hold, got larger ones in row \(row); decode "
        + "smaller values"
    case .lossNotFinite(let step):
      return "loss: expected a finite number with a finite gradient, got NaN or infinity in step \(step); nothing was changed: "
        + "lower the learning rate, or look for outliers in the activations"
    case .sumNotFinite(let exchange, let position):
      return "sum of \(exchange): expected finite numbers, got NaN or infinity at position \(position); nothing was changed: "
        + "look in every process for outliers in the activations, and for one that sent something else than shared_fill wrote"
    case .notInitialized(let operation):
      return "\(operation): expected an autoencoder with parameters, got one without; call fit, partial_fit, initialize or "
        + "load first"
    case .forkedWhileTraining:
      return "autoencoder: expected no training and no call under way during fork(), got one in the middle of its work, whose "
        + "threads are not in this process; fork between calls, or load a save here"
    case .interrupted:
      return "interrupted"
    case .outOfMemory(let bytes):
      return "memory: expected \(bytes) more bytes, got none; lower n_concepts, the batch size or the number of "
        + "models"
    }
  }
}
