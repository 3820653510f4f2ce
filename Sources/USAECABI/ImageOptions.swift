public import CUSAE
import USAE

// `usae_image_options` and `ImageMaximizer.Options`. Fields that correspond are listed once, for both directions.

private typealias C = usae_image_options
private typealias Options = ImageMaximizer.Options

nonisolated(unsafe) private let counts: [(WritableKeyPath<C, Int64>, WritableKeyPath<Options, Int>)] = [
  (\.height, \.height), (\.width, \.width), (\.views, \.views), (\.steps, \.steps),
]

nonisolated(unsafe) private let numbers: [(WritableKeyPath<C, Double>, WritableKeyPath<Options, Double>)] = [
  (\.contrast, \.contrast), (\.first_crop, \.firstCrop), (\.last_crop, \.lastCrop), (\.noise, \.noise),
  (\.learning_rate, \.learningRate), (\.total_variation, \.totalVariation), (\.l2, \.square),
]

private let parametrizations: [(Int32, Options.Parametrization)] = [
  (Int32(USAE_IMAGE_PHASE), .phase), (Int32(USAE_IMAGE_SPECTRUM), .spectrum), (Int32(USAE_IMAGE_PIXELS), .pixels),
]

private let optimizers: [(Int32, Options.Optimizer)] = [
  (Int32(USAE_ASCENT_NADAM), .nadam), (Int32(USAE_ASCENT_ADAM), .adam),
]

private func choice<Case>(_ number: Int32, of cases: [(Int32, Case)], _ name: String) throws(USAEError) -> Case {
  guard let found = cases.first(where: { $0.0 == number }) else {
    throw .invalidArgument(name: "options.\(name)", expected: "a number from 0 to \(cases.count - 1)", got: "\(number)")
  }
  return found.1
}

extension ImageMaximizer.Options {
  init(_ c: usae_image_options) throws(USAEError) {
    try requireZero(c.reserved, "options")
    guard (0...1).contains(c.decorrelate) else {
      throw .invalidArgument(name: "options.decorrelate", expected: "0 or 1", got: "\(c.decorrelate)")
    }
    self.init()
    parametrization = try choice(c.parametrization, of: parametrizations, "parametrization")
    optimizer = try choice(c.optimizer, of: optimizers, "optimizer")
    decorrelatesColours = c.decorrelate == 1
    seed = c.seed
    threads = Int(c.n_threads)
    for (theirs, ours) in counts { self[keyPath: ours] = Int(c[keyPath: theirs]) }
    for (theirs, ours) in numbers { self[keyPath: ours] = c[keyPath: theirs] }
  }
}

extension usae_image_options {
  init(_ options: ImageMaximizer.Options) {
    self.init()
    parametrization = parametrizations.first { $0.1 == options.parametrization }!.0
    optimizer = optimizers.first { $0.1 == options.optimizer }!.0
    decorrelate = options.decorrelatesColours ? 1 : 0
    seed = options.seed
    n_threads = Int32(options.threads)
    for (theirs, ours) in counts { self[keyPath: theirs] = Int64(options[keyPath: ours]) }
    for (theirs, ours) in numbers { self[keyPath: theirs] = options[keyPath: ours] }
  }
}

@c @implementation
public func usae_image_defaults(
  _ options: UnsafeMutablePointer<usae_image_options>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let out = try Output(try required(options, "options"), "options")
    out.write(usae_image_options(ImageMaximizer.Options()))
  }
}
