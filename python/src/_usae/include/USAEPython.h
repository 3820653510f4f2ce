/* Empty, because the only symbol of this target is PyInit__usae. SwiftPM requires a folder of public headers. */
