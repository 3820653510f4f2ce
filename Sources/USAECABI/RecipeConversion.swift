public import CUSAE
import USAE

// `usae_recipe` and `Recipe` have the same fields in the same order (`Recipe.fields`), so one walk over them converts either to
// the other; no field has a line of its own here.

/// A field of `usae_recipe`, at the next multiple of its size after the one before, as C lays structs out.
private struct Member {
  let field: Recipe.Field
  let offset: Int

  static let all: [Member] = {
    var end = MemoryLayout.size(ofValue: usae_recipe().size)
    return Recipe.fields.map { field in
      let (alignment, size) = field.content.layout
      let offset = (end + alignment - 1) / alignment * alignment
      end = offset + size
      return Member(field: field, offset: offset)
    }
  }()

  func load(from bytes: UnsafeRawBufferPointer, to recipe: inout Recipe) throws(USAEError) {
    switch field.content {
    case .choice(let names, _, let set): set(&recipe, try number(in: bytes, of: names))
    case .toggle(let path): recipe[keyPath: path] = try number(in: bytes, of: ["off", "on"]) == 1
    case .count(let path, _): recipe[keyPath: path] = Int(bytes.load(fromByteOffset: offset, as: Int64.self))
    case .number(let path, _): recipe[keyPath: path] = bytes.load(fromByteOffset: offset, as: Double.self)
    case .shares(let path):
      let shares = (0..<Int(USAE_MOST_PREFIXES)).map { bytes.load(fromByteOffset: offset + 8 * $0, as: Double.self) }
      let count = shares.lastIndex { $0 != 0 }.map { $0 + 1 } ?? 0  // an inner 0 stays, and is refused
      recipe[keyPath: path] = Array(shares[..<count])
    }
  }

  private func number(in bytes: UnsafeRawBufferPointer, of names: [String]) throws(USAEError) -> Int32 {
    let number = bytes.load(fromByteOffset: offset, as: Int32.self)
    guard names.indices.contains(Int(number)) else {
      let known = names.enumerated().map { "\($0) (\($1))" }.joined(separator: ", ")
      throw .invalidArgument(name: "recipe.\(field.name)", expected: "one of \(known)", got: "\(number)")
    }
    return number
  }

  func store(_ recipe: Recipe, to bytes: UnsafeMutableRawBufferPointer) {
    switch field.content {
    case .choice(_, let get, _): bytes.storeBytes(of: get(recipe), toByteOffset: offset, as: Int32.self)
    case .toggle(let path): bytes.storeBytes(of: recipe[keyPath: path] ? 1 : 0, toByteOffset: offset, as: Int32.self)
    case .count(let path, _): bytes.storeBytes(of: Int64(recipe[keyPath: path]), toByteOffset: offset, as: Int64.self)
    case .number(let path, _): bytes.storeBytes(of: recipe[keyPath: path], toByteOffset: offset, as: Double.self)
    case .shares(let path):
      for (i, share) in recipe[keyPath: path].enumerated() {
        bytes.storeBytes(of: share, toByteOffset: offset + 8 * i, as: Double.self)
      }
    }
  }
}

extension Recipe.Content {
  fileprivate var layout: (alignment: Int, size: Int) {
    switch self {
    case .choice, .toggle: (4, 4)
    case .count, .number: (8, 8)
    case .shares: (8, 8 * Int(USAE_MOST_PREFIXES))
    }
  }
}

extension Recipe {
  init(_ c: usae_recipe) throws(USAEError) {
    try requireZero(c.reserved, "recipe")
    self.init()
    try withUnsafeBytes(of: c) { bytes throws(USAEError) in
      for member in Member.all { try member.load(from: bytes, to: &self) }
    }
  }
}

extension usae_recipe {
  init(_ recipe: Recipe) {
    self.init()
    withUnsafeMutableBytes(of: &self) { bytes in
      for member in Member.all { member.store(recipe, to: bytes) }
    }
  }
}

@c @implementation
public func usae_recipe_preset(
  _ preset: Int32, _ recipe: UnsafeMutablePointer<usae_recipe>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let out = try Output(try required(recipe, "recipe"), "recipe")
    switch preset {
    case Int32(USAE_PRESET_DEFAULT): out.write(usae_recipe(Recipe()))
    case Int32(USAE_PRESET_PUBLISHED): out.write(usae_recipe(Recipe.published()))
    default: throw .invalidArgument(name: "preset", expected: "one of USAE_PRESET_*", got: "\(preset)")
    }
  }
}

// MARK: The fields, for callers that set them by name

@c @implementation
public func usae_recipe_field_count() -> Int64 { Int64(Member.all.count) }

@c @implementation
public func usae_recipe_field_at(
  _ number: Int64, _ field: UnsafeMutablePointer<usae_recipe_field>?, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let out = try Output(try required(field, "field"), "field")
    guard described.indices.contains(Int(number)) else {
      throw .invalidArgument(name: "number", expected: "a number from 0 to \(described.count - 1)", got: "\(number)")
    }
    out.write(described[Int(number)])
  }
}

/// All fields as C structs, made once; their text is never freed.
nonisolated(unsafe) private let described: [usae_recipe_field] = Member.all.map { member in
  var result = usae_recipe_field()
  result.offset = Int32(member.offset)
  result.zero_is_none = member.field.zeroIsNone ? 1 : 0
  result.name = staticCopy(member.field.name)
  switch member.field.content {
  case .choice(let names, _, _):
    result.kind = Int32(USAE_FIELD_CHOICE)
    result.choices = UnsafePointer(staticCopy(names.map { Optional(staticCopy($0)) }))
    result.n_choices = Int64(names.count)
  case .toggle:
    result.kind = Int32(USAE_FIELD_SWITCH)
  case .count(_, let range):
    result.kind = Int32(USAE_FIELD_COUNT)
    (result.smallest, result.largest) = (Double(range.lowerBound), Double(range.upperBound))
  case .number(_, let range):
    result.kind = Int32(USAE_FIELD_NUMBER)
    (result.smallest, result.largest) = (range.lowerBound, range.upperBound)
  case .shares:
    result.kind = Int32(USAE_FIELD_SHARES)
    (result.smallest, result.largest) = (0, 1)
  }
  return result
}
