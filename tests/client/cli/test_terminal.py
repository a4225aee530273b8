"""Images as text for a terminal."""

from PIL import Image

from anytime_client.cli.terminal import image_to_text


def test_an_image_has_two_pixels_a_character():
    text = image_to_text(Image.new("RGB", (30, 20), (100, 100, 100)), width=12)
    assert text.plain.splitlines() == ["\u2580" * 12] * 4
