"""Real servers that the tests start by themselves, and end.

Each starts when a test first asks for it, lives in a folder of its own on free ports of
the loopback, and serves all tests of the session. Where one cannot be had here the test
is skipped and named at the end of the run; where `CI` is set, or `REQUIRE_ENGINES=all`,
it fails, so that nothing passes by not being tried.
"""
