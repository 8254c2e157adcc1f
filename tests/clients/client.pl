# Requests by Perl's clients. `client.pl URL KEY` prints a line for each: its name, a tab, the status.
use strict;
use warnings;
use Compress::Zlib;
use HTTP::Request::Common;
use HTTP::Tiny;
use LWP::UserAgent;

my ($base, $key) = @ARGV;
my $url = "$base/webhooks/email-marketing/click";
my @json = (Authorization => "Bearer $key", 'Content-Type' => 'application/json');

sub click {
    my ($name) = @_;
    my $noise = $name =~ /large/ ? ',"noise":"' . 'x' x 100_000 . '"' : '';
    return "{\"campid\":\"$name\"$noise}";
}

sub say_status { print "$_[0]\t$_[1]\n" }

my $lwp = LWP::UserAgent->new(timeout => 60, keep_alive => 2);
for my $name ('LWP: a text', 'LWP: second of a connection', 'LWP: large') {
    say_status($name, $lwp->request(POST $url, @json, Content => click($name))->code);
}
my @pieces = ('{"campid":', '"LWP: chunks"}');
my $chunks = HTTP::Request->new(POST => $url, [@json], sub { shift(@pieces) // '' });
say_status('LWP: chunks', $lwp->request($chunks)->code);
say_status('LWP: gzip', $lwp->request(
    POST $url, @json, 'Content-Encoding' => 'gzip', Content => Compress::Zlib::memGzip(click('LWP: gzip')))->code);
say_status('LWP: a form', $lwp->request(
    POST "$base/form", [campid => 'LWP: a form'], Authorization => "Bearer $key")->code);

my $tiny = HTTP::Tiny->new(timeout => 60, default_headers => {@json});
say_status('HTTP::Tiny: a text', $tiny->post($url, { content => click('HTTP::Tiny: a text') })->{status});
say_status('HTTP::Tiny: a slash at the end',
    $tiny->post("$url/", { content => click('HTTP::Tiny: a slash at the end') })->{status});
