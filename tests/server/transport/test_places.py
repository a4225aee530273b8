"""Who keeps their place when more come than there are places for."""

from anytime_server.transport.places import Places


def nothing():
    pass


def test_newcomers_beyond_the_limit_are_outside_and_nobody_inside_is_touched():
    places = Places(2)
    first, second = places.take(nothing), places.take(nothing)
    third = places.take(nothing)
    assert [place.is_inside for place in (first, second, third)] == [True, True, False]


def test_who_is_outside_moves_in_when_a_place_is_left():
    places = Places(1)
    first, second = places.take(nothing), places.take(nothing)
    first.leave()
    first.leave()
    assert second.is_inside
    assert not places.take(nothing).is_inside


def test_where_the_reserve_is_full_as_well_its_oldest_connection_is_closed():
    closed = []
    places = Places(1)
    inside = places.take(lambda: closed.append("inside"))
    for number in range(70):
        places.take(lambda number=number: closed.append(number))
    assert closed == [0, 1, 2, 3, 4, 5]
    assert inside.is_inside
