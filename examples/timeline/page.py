"""The pages as HTML. What comes from people is escaped where it enters."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from examples.timeline.people import READER, Person, Post

TINTS = 6  # colours of avatars in the style sheet


def home(poster: Person, posts: Sequence[Post], followers: int) -> str:
    """The poster's own timeline, with what her posts set in motion beside it."""
    newest = max((post.id for post in posts), default=0)
    return _document(
        f"{poster.name} · timeline",
        f"""
<main>
  <section class="column" aria-labelledby="timeline-title">
    <h1 id="timeline-title">Timeline</h1>
    <form id="compose" class="card compose" action="/posts" method="post">
      {_avatar(poster)}
      <div>
        <label for="text" class="sr-only">A new post</label>
        <textarea id="text" name="text" rows="2" maxlength="280" required
          placeholder="What is new, Ada?"></textarea>
        <div class="row">
          <span class="hint">{followers:,} people follow you</span>
          <button type="submit">Post</button>
        </div>
      </div>
    </form>
    <ol id="posts" class="posts" data-followers="{followers}">{"".join(map(_post, posts))}</ol>
  </section>
  <aside class="column">
    <section class="card" aria-labelledby="work-title">
      <h2 id="work-title">In the background</h2>
      <p class="hint">Each post becomes one job. Followed live, by server-sent events.</p>
      <ol id="jobs" class="jobs"></ol>
      <p id="idle" class="hint">Nothing to do. Write a post.</p>
      <p class="sr-only" id="said" role="status"></p>
    </section>
    {_flood(newest)}
    <p class="hint">See what a follower sees:
      <a href="/people/{READER}">Grace Hopper&rsquo;s timeline</a></p>
  </aside>
</main>
{_templates(poster)}""",
        script=True,
    )


def reader(person: Person, posts: Sequence[Post]) -> str:
    """A follower's timeline, to look at only."""
    return _document(
        f"{person.name} · timeline",
        f"""
<main class="single">
  <section class="column" aria-labelledby="timeline-title">
    <h1 id="timeline-title">{escape(person.name)}&rsquo;s timeline</h1>
    <ol id="posts" class="posts">{"".join(map(_post, posts))}</ol>
    {"" if posts else '<p class="hint card">Nothing yet.</p>'}
    <p class="hint"><a href="/">Back to Ada&rsquo;s timeline</a></p>
  </section>
</main>""",
    )


def nobody(handle: str) -> str:
    """There is no such person."""
    return refusal(f"There is nobody called {handle} here.")


def refusal(why: str) -> str:
    """What cannot be done, in a sentence."""
    return _document("timeline", f'<main class="single"><p class="card">{escape(why)}</p></main>')


def _document(title: str, body: str, *, script: bool = False) -> str:
    tag = '<script type="module" src="/static/timeline.js"></script>' if script else ""
    return f"""<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>{escape(title)}</title>
  <link rel="icon" href="/static/icon.svg" type="image/svg+xml">
  <link rel="stylesheet" href="/static/timeline.css">
  {tag}
</head>
<body>
<header class="top"><a href="/"><img src="/static/icon.svg" alt="" width="26" height="26">
  timeline</a><span class="hint">an example of backlane</span></header>
{body}
</body>
</html>
"""


def _post(post: Post) -> str:
    when = datetime.fromtimestamp(post.at_ms / 1000, UTC)
    following = f' data-job="{post.job}"' if post.job and post.took_ms is None else ""
    return f"""
<li class="card post" id="post-{post.id}" data-post="{post.id}"{following}>
  {_avatar(post.author)}
  <div>
    <p class="by"><b>{escape(post.author.name)}</b> <span class="hint">@{escape(post.author.handle)}
      · <time datetime="{when.isoformat()}">{when:%H:%M}</time></span></p>
    <p class="text">{escape(post.text)}</p>
    <p class="row foot"><span class="hearts" title="hearts">♥ <b>{post.hearts}</b></span>
      {_delivery(post)}</p>
  </div>
</li>"""


def _delivery(post: Post) -> str:
    if not post.followers:
        return '<span class="delivery"></span>'
    if post.took_ms is None:
        return (
            '<span class="delivery" data-state="sending">'
            f"sending to {post.followers:,} followers…</span>"
        )
    took = f"{post.took_ms / 1000:.1f} s"
    return (
        '<span class="delivery" data-state="sent">'
        f"sent to {post.followers:,} followers in {took}</span>"
    )


def _avatar(person: Person) -> str:
    first, *_, last = person.name.split()
    tint = zlib.crc32(person.handle.encode()) % TINTS
    return f'<span class="avatar tint-{tint}" aria-hidden="true">{first[0]}{last[0]}</span>'


def _flood(newest: int) -> str:
    return f"""
<section class="card flood" id="flood" data-post="{newest}" aria-labelledby="flood-title">
  <h2 id="flood-title">A flood</h2>
  <p class="hint">Send many hearts at once to a queue that holds few. What does not fit is told
    when to come back, and comes back then.</p>
  <form class="row"><label for="number">Hearts</label>
    <input id="number" name="number" type="number" min="10" max="1000" value="300" required>
    <button type="submit">Flood</button></form>
  <div class="line"><label for="depth">Queue</label>
    <meter id="depth" min="0" max="1" high="0.9" value="0"></meter>
    <span class="hint" id="places">empty</span></div>
  <div class="squares" id="squares" aria-hidden="true"></div>
  <dl class="figures">
    <div><dt><i class="key" data-state="accepted"></i>accepted</dt><dd id="accepted">0</dd></div>
    <div><dt><i class="key" data-state="waiting"></i>waiting</dt><dd id="waiting">0</dd></div>
    <div><dt><i class="key" data-state="refused"></i>503s</dt><dd id="refused">0</dd></div>
    <div><dt>tries each</dt><dd id="tries">0</dd></div>
  </dl>
  <p class="hint" id="outcome" role="status"></p>
</section>"""


def _templates(poster: Person) -> str:
    return f"""
<template id="post-template"><li class="card post">
  {_avatar(poster)}
  <div>
    <p class="by"><b>{escape(poster.name)}</b> <span class="hint">@{escape(poster.handle)}
      · <time>now</time></span></p>
    <p class="text"></p>
    <p class="row foot"><span class="hearts" title="hearts">♥ <b>0</b></span>
      <span class="delivery" data-state="sending"></span></p>
  </div>
</li></template>
<template id="job-template"><li class="job">
  <p class="row"><b class="what"></b><span class="state"></span></p>
  <progress max="1" value="0"></progress>
  <p class="hint detail"></p>
</li></template>"""
