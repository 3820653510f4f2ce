public import CUSAE
import USAE

extension ImageMaximizer {
  /// The object behind a handle.
  static func at(_ handle: OpaquePointer?) throws(USAEError) -> ImageMaximizer {
    Unmanaged<ImageMaximizer>.fromOpaque(try required(handle.map(UnsafeRawPointer.init), "maximizer"))
      .takeUnretainedValue()
  }
}

extension PixelScale {
  fileprivate init(_ view: usae_view) throws(USAEError) {
    try self.init(
      mean: [view.mean.0, view.mean.1, view.mean.2].map(Float.init),
      deviation: [view.std.0, view.std.1, view.std.2].map(Float.init))
  }
}

/// The input of a model, checked. No field has a default.
private func checked(_ view: UnsafePointer<usae_view>?) throws(USAEError) -> usae_view {
  let view = try usae_view.input(view, "view", from: 72)
  try requireZero(view.reserved, "view")
  return view
}

@c @implementation
public func usae_maximizer_create(
  _ options: UnsafePointer<usae_image_options>?, _ magnitude: UnsafePointer<Float>?, _ start: UnsafePointer<Float>?,
  _ out: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let out = try required(out, "out")
    let options = try usae_image_options.input(options, "options", defaults: usae_image_options(ImageMaximizer.Options()))
    let maximizer = try ImageMaximizer(try ImageMaximizer.Options(options), magnitude: magnitude, start: start)
    out.pointee = OpaquePointer(Unmanaged.passRetained(maximizer).toOpaque())
  }
}

@c @implementation
public func usae_maximizer_destroy(_ maximizer: OpaquePointer?) {
  guard let maximizer else { return }
  Unmanaged<ImageMaximizer>.fromOpaque(UnsafeRawPointer(maximizer)).release()
}

@c @implementation
public func usae_maximizer_views(
  _ maximizer: OpaquePointer?, _ view: UnsafePointer<usae_view>?, _ out: UnsafeMutablePointer<Float>?,
  _ interrupt: UnsafePointer<usae_interrupt>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let view = try checked(view)
    try ImageMaximizer.at(maximizer).views(
      height: Int(view.height), width: Int(view.width), scale: try PixelScale(view), out: try required(out, "out"),
      poll: poll(interrupt))
  }
}

@c @implementation
public func usae_maximizer_add_gradient(
  _ maximizer: OpaquePointer?, _ view: UnsafePointer<usae_view>?, _ weight: Double, _ gradient: UnsafePointer<Float>?,
  _ norm: UnsafeMutablePointer<Double>?, _ interrupt: UnsafePointer<usae_interrupt>?,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let view = try checked(view)
    let length = try ImageMaximizer.at(maximizer).addGradient(
      try required(gradient, "gradient"), height: Int(view.height), width: Int(view.width), scale: try PixelScale(view),
      weight: weight, poll: poll(interrupt))
    norm?.pointee = length
  }
}

@c @implementation
public func usae_maximizer_advance(
  _ maximizer: OpaquePointer?, _ interrupt: UnsafePointer<usae_interrupt>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in try ImageMaximizer.at(maximizer).advance(poll: poll(interrupt)) }
}

@c @implementation
public func usae_maximizer_step_count(_ maximizer: OpaquePointer?) -> Int64 {
  guard let maximizer = try? ImageMaximizer.at(maximizer), let steps = try? maximizer.stepCount else { return -1 }
  return Int64(steps)
}

@c @implementation
public func usae_maximizer_image(
  _ maximizer: OpaquePointer?, _ out: UnsafeMutablePointer<Float>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in try ImageMaximizer.at(maximizer).image(try required(out, "out")) }
}

@c @implementation
public func usae_maximizer_attribution(
  _ maximizer: OpaquePointer?, _ out: UnsafeMutablePointer<Float>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in try ImageMaximizer.at(maximizer).attribution(try required(out, "out")) }
}

@c @implementation
public func usae_maximizer_boxes(
  _ maximizer: OpaquePointer?, _ out: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let out = try required(out, "out")
    for (i, box) in try ImageMaximizer.at(maximizer).boxes.enumerated() {
      for (j, value) in [box.top, box.left, box.height, box.width].enumerated() { out[4 * i + j] = Int64(value) }
    }
  }
}

@c @implementation
public func usae_crop_resize(
  _ height: Int64, _ width: Int64, _ image: UnsafePointer<Float>?, _ n_boxes: Int64, _ boxes: UnsafePointer<Int64>?,
  _ view: UnsafePointer<usae_view>?, _ out: UnsafeMutablePointer<Float>?, _ n_threads: Int32,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let view = try checked(view)
    let work = try InterruptibleWork(threadsWanted: Int(n_threads))
    guard (1...1 << 20).contains(n_boxes) else {
      throw .invalidArgument(name: "n_boxes", expected: "a number from 1 to 2^20", got: "\(n_boxes)")
    }
    let numbers = UnsafeBufferPointer(start: try required(boxes, "boxes"), count: 4 * Int(n_boxes)).map { Int($0) }
    let list = stride(from: 0, to: numbers.count, by: 4).map {
      Box(top: numbers[$0], left: numbers[$0 + 1], height: numbers[$0 + 2], width: numbers[$0 + 3])
    }
    try cropAndResize(
      try required(image, "image"), height: Int(height), width: Int(width), boxes: list,
      to: (Int(view.height), Int(view.width)), scale: try PixelScale(view), out: try required(out, "out"), work: work)
  }
}

@c @implementation
public func usae_objective(
  _ sae: OpaquePointer?, _ model: Int32, _ concept_index: Int64, _ objective: Int32, _ power: Double, _ token: Int64,
  _ n_views: Int64, _ x: UnsafePointer<usae_matrix>?, _ values: UnsafeMutablePointer<Double>?,
  _ gradient: UnsafeMutablePointer<Float>?, _ interrupt: UnsafePointer<usae_interrupt>?,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let sae = try UniversalSAE.at(sae)
    let kind: UniversalSAE.ObjectiveKind
    switch objective {
    case Int32(USAE_OBJECTIVE_ALIGNMENT):
      guard (0...100).contains(power) else {
        throw .invalidArgument(name: "power", expected: "a number from 0 to 100", got: "\(power)")
      }
      kind = .alignment(power: power)
    case Int32(USAE_OBJECTIVE_PREACTIVATION): kind = .preactivation
    case Int32(USAE_OBJECTIVE_CODE): kind = .code
    case Int32(USAE_OBJECTIVE_LOG_SUM_EXP): kind = .logSumExp
    default: throw .invalidArgument(name: "objective", expected: "one of USAE_OBJECTIVE_*", got: "\(objective)")
    }
    try sae.objective(
      ConceptObjective(concept: Int(concept_index), kind: kind, token: token < 0 ? nil : Int(token)),
      of: try activations(x, of: sae, model: model), model: Int(model), views: Int(n_views),
      values: try required(values, "values"), gradient: try required(gradient, "gradient"),
      work: sae.makeWork(poll: poll(interrupt)))
  }
}
